//! Configuration, schemas and policies, every mistake at once, without putting anything in force: what `holdpoint check`
//! and `POST /v1/policies/check` say.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::SystemClock;
use crate::config::{self, Config, ToolConfig};
use crate::gates::schema::Schemas;
use crate::policy::{self, Counts, Finding, Loaded, Severity, Source};
use crate::snapshot;

/// Which policies are looked at.
#[derive(Debug, Clone, Copy)]
pub enum Set<'a> {
    /// Those of the configuration's folder.
    Configured,
    /// Those of another folder.
    Dir(&'a Path),
    /// These, whatever the disk has.
    Given(&'a [Source]),
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The configuration, when it loads.
    pub config: Option<Config>,
    /// What is wrong with it.
    pub mistakes: Vec<String>,
    /// How many operations have a schema, and what is wrong with schemas of ours.
    pub schemas: (usize, Vec<String>),
    /// The policies, when they load.
    pub policies: Option<Loaded>,
    /// Everything else that was found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Looks at a configuration, and at these policies with it.
    #[must_use]
    pub fn of(path: &Path, set: Set<'_>) -> Self {
        let mut config = match config::load(path) {
            Ok(config) => config,
            Err(mistakes) => return Self::rejected(&mistakes.to_string()),
        };
        if let Set::Dir(dir) = set {
            config.policy_dir = dir.to_path_buf();
        }
        let (typed, broken, stopped) = schemas(&config);
        let mut findings: Vec<Finding> =
            observing(&config).into_iter().chain(unlisted(&config)).chain(stopped).collect();
        let (model, defaults) = (snapshot::model(&config), snapshot::defaults(&config));
        let loaded = match set {
            Set::Given(sources) => policy::load_sources(sources, &model, defaults),
            Set::Configured | Set::Dir(_) => policy::load(&config.policy_dir, &model, defaults),
        };
        let policies = match loaded {
            Ok(loaded) => {
                findings.extend(loaded.findings().iter().cloned());
                Some(loaded)
            }
            Err(mistakes) => {
                findings.extend(mistakes);
                None
            }
        };
        Self { config: Some(config), mistakes: Vec::new(), schemas: (typed, broken), policies, findings }
    }

    fn rejected(why: &str) -> Self {
        let mistakes = why.lines().map(str::to_owned).collect();
        Self { config: None, mistakes, schemas: (0, Vec::new()), policies: None, findings: Vec::new() }
    }

    /// How many mistakes; with none, it could be put in force.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.mistakes.len() + self.schemas.1.len() + self.count(Severity::Error)
    }

    /// How many findings of this kind.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    /// Policies in shadow.
    #[must_use]
    pub fn shadows(&self) -> Vec<&str> {
        self.policies.as_ref().map(Loaded::shadows).unwrap_or_default()
    }

    /// All of it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "version": 1, "ok": self.errors() == 0,
            "config": self.mistakes, "schemas": {"typed": self.schemas.0, "errors": self.schemas.1},
            "policies": self.policies.as_ref().map(policies_json),
            "nobody_can_release": self.policies.as_ref().map(Loaded::nobody_can_release).unwrap_or_default(),
            "shadow": self.shadows(), "findings": self.findings.iter().map(finding_json).collect::<Vec<_>>(),
        })
    }
}

fn policies_json(loaded: &Loaded) -> Value {
    let Counts { low, medium, high, never, admin, shadow } = loaded.counts();
    json!({
        "count": loaded.policies().len(), "files": loaded.files(), "digest": loaded.digest(),
        "tiers": {"low": low, "medium": medium, "high": high, "nobody": never, "admin": admin, "shadow": shadow},
    })
}

/// One finding.
#[must_use]
pub fn finding_json(f: &Finding) -> Value {
    json!({
        "severity": f.severity.as_str(), "code": f.code, "message": f.message, "help": f.help, "file": f.file,
        "line": f.line, "column": f.column,
    })
}

/// How many operations have one, those of ours that cannot be used, and a word on those of servers: one bad schema of a
/// server stops that tool, and nothing else.
fn schemas(config: &Config) -> (usize, Vec<String>, Vec<Finding>) {
    let operations: Vec<_> = config.tools.iter().flat_map(ToolConfig::calls).cloned().collect();
    let schemas = Schemas::new(operations.iter(), HashMap::new(), Arc::new(SystemClock));
    let rest: BTreeSet<&str> = config.tools.iter().flat_map(|t| &t.rest).map(|r| r.2.name.as_str()).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = schemas.broken().partition(|(op, _)| rest.contains(op));
    let broken = ours.into_iter().map(|(op, why)| format!("{op}: {why}")).collect();
    let stopped = theirs.into_iter().map(|(op, why)| {
        let what = format!("{op}: its schema cannot be used, so its calls are refused: {why}");
        Finding::new(Severity::Warning, "tool-schema", what)
    });
    (operations.iter().filter(|o| o.schema.is_some()).count(), broken, stopped.collect())
}

/// A set that only observes stops nothing.
fn observing(config: &Config) -> Option<Finding> {
    let text = "policies.mode is `observe`: every call runs, and what policy would have said is only recorded";
    config.observe.then(|| Finding::new(Severity::Warning, "policy-observe", text))
}

/// Tools of a lock file that no operation lists are refused: worth a word.
fn unlisted(config: &Config) -> Vec<Finding> {
    let named = config.tools.iter().filter(|t| !t.unlisted.is_empty());
    named
        .map(|t| {
            let what = format!("{}: not listed under `operations`, so refused: {}", t.tool.name, t.unlisted.join(", "));
            Finding::new(Severity::Note, "tool-unlisted", what)
        })
        .collect()
}
