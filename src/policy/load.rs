//! Reading a directory of policies; every mistake in it at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{Effect, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use super::annotations::{Annotations, HOLD_KEYS, KEYS};
use super::cover;
use super::depth;
use super::files;
use super::finding::{Finding, Severity, Source, nearest};
use super::lint::{self, Lift};
use super::model::{Defaults, Model};
use super::quorum;
use super::schema::{self, Generated};
use super::set::{Loaded, Plane, Policy};
use super::stages;
use crate::call::Digest;

/// Loads every `*.cedar` file below `dir`, but for hidden files and folders, in the order of their names.
///
/// # Errors
/// Every mistake in the set, with the warnings and notes among them.
pub fn load(dir: &Path, model: &Model, defaults: Defaults) -> Result<Loaded, Vec<Finding>> {
    let (sources, below, mut findings) = files::read(dir);
    match load_sources(&sources, model, defaults) {
        Ok(loaded) if findings.is_empty() => Ok(Loaded { digest: digest(&below), sources: below.into(), ..loaded }),
        Ok(loaded) => Err({
            findings.extend(loaded.findings);
            findings
        }),
        Err(more) => Err({
            findings.extend(more);
            findings
        }),
    }
}

/// Loads policies from texts.
///
/// # Errors
/// Every mistake in the set, with the warnings and notes among them.
pub fn load_sources(sources: &[Source], model: &Model, defaults: Defaults) -> Result<Loaded, Vec<Finding>> {
    let loaded = depth::with_room(|| loaded(sources, model, defaults));
    loaded.unwrap_or_else(|| {
        Err(vec![Finding::error("policy-internal", "these policies could not be read: a fault of ours")])
    })
}

fn loaded(sources: &[Source], model: &Model, defaults: Defaults) -> Result<Loaded, Vec<Finding>> {
    let generated = schema::generate(model);
    let mut loader = Loader { model, defaults, findings: generated.findings.clone() };
    let mut parsed = sources.iter().flat_map(|s| loader.parse(s)).collect::<Vec<_>>();
    let own = parsed.len();
    if sources.iter().all(|s| s.text.trim().is_empty()) || (parsed.is_empty() && !loader.failed()) {
        loader.findings.push(empty());
    }
    let built_in = stages::sources(&model.stages_in_force);
    parsed.extend(built_in.iter().flat_map(|s| loader.parse(s)));
    let mut policies = parsed.iter_mut().map(|p| loader.judge(p, &generated)).collect::<Vec<_>>();
    policies.iter_mut().skip(own).for_each(|p| p.built_in = true);
    loader
        .findings
        .retain(|f| f.severity != Severity::Note || built_in.iter().all(|s| f.file.as_ref() != Some(&s.name)));
    if own > 0 && !policies.iter().any(|p| p.plane == Plane::Agent && !p.is_forbid() && !p.shadow) {
        let text = "no policy permits any call, so every call will be refused";
        loader.findings.push(Finding::new(Severity::Warning, "policy-empty", text));
    }
    loader.duplicates(&parsed);
    let schema = loader.validate(&parsed, &generated);
    loader.findings.sort_by(|a, b| a.severity.cmp(&b.severity).then_with(|| (&a.file, a.line).cmp(&(&b.file, b.line))));
    match schema {
        Some(schema) if !loader.failed() => Ok(Loaded {
            policies: policies.into_iter().map(Arc::new).collect(),
            files: sources.len(),
            model: Arc::new(model.clone()),
            defaults,
            schema: Arc::new(schema),
            schema_text: generated.text,
            inputs: generated.inputs,
            digest: digest(sources),
            sources: sources.into(),
            findings: loader.findings,
        }),
        _ => Err(loader.findings),
    }
}

fn empty() -> Finding {
    Finding::error("policy-empty", "there is no policy, so every call would be refused")
        .with_help("put at least one `permit` into a `.cedar` file")
}

/// Each length goes in, so that no two sets share the bytes that are hashed.
fn digest(sources: &[Source]) -> Digest {
    let mut all = Vec::new();
    for part in sources.iter().flat_map(|s| [&s.name, &s.text]) {
        all.extend((part.len() as u64).to_be_bytes());
        all.extend(part.as_bytes());
    }
    Digest::of(&all)
}

/// A policy that Cedar could parse, and where it stands.
struct Parsed<'a> {
    source: &'a Source,
    start: usize,
    end: usize,
    cedar: cedar_policy::Policy,
    id: Option<String>,
}

impl Parsed<'_> {
    /// A mistake at the policy's first line.
    fn error(&self, code: &'static str, message: impl Into<String>) -> Finding {
        self.place(Finding::error(code, message))
    }

    fn place(&self, finding: Finding) -> Finding {
        finding.at(self.source, self.start, self.end)
    }

    fn note(&self, message: impl Into<String>) -> Finding {
        self.place(Finding::new(Severity::Note, "policy-note", message))
    }

    fn vacuous(&self, condition: usize) -> Finding {
        let which =
            if condition == 0 { "its first condition".to_owned() } else { format!("condition {}", condition + 1) };
        let text = format!("{}: {which} always holds, so it says nothing", self.name());
        self.place(Finding::new(Severity::Warning, "policy-vacuous", text))
    }

    fn name(&self) -> &str {
        self.id.as_deref().unwrap_or("this policy")
    }

    /// A mistake at the first place after the annotations where `word` stands.
    fn error_at_word(&self, code: &'static str, word: &str, message: impl Into<String>) -> Finding {
        let body = self.source.text.get(self.start..self.end).unwrap_or("");
        let scope = body.find("(principal").unwrap_or(0);
        match body.get(scope..).and_then(|b| b.find(word)) {
            Some(at) => {
                let start = self.start + scope + at;
                Finding::error(code, message).at(self.source, start, start + word.len())
            }
            None => self.error(code, message),
        }
    }
}

struct Loader<'a> {
    model: &'a Model,
    defaults: Defaults,
    findings: Vec<Finding>,
}

impl Loader<'_> {
    fn failed(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error)
    }

    fn parse<'s>(&mut self, source: &'s Source) -> Vec<Parsed<'s>> {
        if let Some(deep) = depth::too_deep(source) {
            self.findings.push(deep);
            return Vec::new();
        }
        let set = match PolicySet::from_str(&source.text) {
            Ok(set) => set,
            Err(errors) => {
                self.findings.extend(errors.iter().map(|e| diagnosed(e, "policy-syntax", source)));
                return Vec::new();
            }
        };
        for template in set.templates() {
            let loc = template.as_ref().loc().map_or((0, 1), |l| (l.start(), l.end()));
            let text = "templates are not accepted: write the policy out for each principal or resource";
            self.findings.push(Finding::error("policy-template", text).at(source, loc.0, loc.1));
        }
        let mut found: Vec<_> = set
            .policies()
            .map(|policy| {
                let (start, end) = policy.as_ref().loc().map_or((0, 1), |l| (l.start(), l.end()));
                Parsed { source, start, end, cedar: policy.clone(), id: None }
            })
            .collect();
        found.sort_by_key(|p| p.start);
        found
    }

    /// Reads and judges all of a policy that needs no type-checking.
    fn judge(&mut self, parsed: &mut Parsed<'_>, generated: &Generated) -> Policy {
        let annotations = self.annotations(parsed);
        parsed.id.clone_from(&annotations.id);
        let id = annotations.id.clone().unwrap_or_else(|| format!("{}#{}", parsed.source.name, parsed.start));
        parsed.cedar = parsed.cedar.new_id(PolicyId::new(&id));
        let plane = self.plane(parsed);
        let (line, _) = parsed.source.position(parsed.start);
        let mut policy = Policy {
            id,
            reason: annotations.reason.clone().unwrap_or_default(),
            at: format!("{}:{line}", short(&parsed.source.name)),
            plane,
            lift: Lift::Never,
            shadow: annotations.shadow,
            built_in: false,
            annotations,
            reads: None,
            cedar: parsed.cedar.clone(),
        };
        match policy.cedar.to_pst() {
            Ok(tree) => self.body(parsed, &mut policy, &lint::body(tree.body()), generated),
            Err(e) => self.findings.push(parsed.error("policy-unknown", format!("cannot judge this policy: {e}"))),
        }
        self.obligations(parsed, &policy);
        self.sums(parsed, &policy, generated);
        policy
    }

    fn annotations(&mut self, parsed: &Parsed<'_>) -> Annotations {
        let mut all = Annotations::default();
        for (key, annotation) in parsed.cedar.as_ref().annotations() {
            let key: &str = key.as_ref();
            if let Err(message) = all.put(key, annotation.val.as_str()) {
                let (start, end) = annotation.loc.as_ref().map_or((parsed.start, parsed.end), |l| (l.start(), l.end()));
                let near = if KEYS.contains(&key) { None } else { nearest(key, KEYS.iter().copied()) };
                let mut finding = Finding::error("policy-annotation", message).at(parsed.source, start, end);
                finding.help = near.map(|n| format!("did you mean `@{n}`?"));
                self.findings.push(finding);
            }
        }
        if parsed.cedar.annotation("id").is_none() {
            self.findings.push(parsed.error("policy-id", "this policy has no `@id`"));
        }
        all
    }

    fn duplicates(&mut self, parsed: &[Parsed<'_>]) {
        let mut first: BTreeMap<&str, String> = BTreeMap::new();
        for p in parsed {
            let Some(id) = p.id.as_deref() else { continue };
            let (line, _) = p.source.position(p.start);
            let here = format!("{}:{line}", p.source.name);
            if let Some(there) = first.get(id) {
                self.findings.push(p.error("policy-id", format!("`@id(\"{id}\")` stands already at {there}")));
            } else {
                first.insert(id, here);
            }
        }
    }

    fn plane(&mut self, parsed: &Parsed<'_>) -> Plane {
        match cover::plane(&parsed.cedar) {
            Ok(plane) => plane,
            Err((plane, mistake)) => {
                let help = match plane {
                    Plane::Agent => "write `action in Holdpoint::Action::\"call\"`",
                    Plane::Admin => "split it in two: the admin plane is decided by policies of its own",
                };
                self.findings.push(parsed.error_at_word("policy-scope", "action", mistake).with_help(help));
                plane
            }
        }
    }

    fn body(&mut self, parsed: &Parsed<'_>, policy: &mut Policy, body: &lint::Body, generated: &Generated) {
        policy.lift = if policy.is_forbid() { body.lift } else { Lift::Never };
        policy.reads.clone_from(&body.reads);
        if let Some(why) = body.approval {
            self.findings.push(parsed.error_at_word("policy-approval", "approval", why));
        }
        for path in &body.arithmetic {
            for operation in cover::unbounded(policy, path, self.model, generated) {
                let name = path.join(".");
                let what =
                    format!("arithmetic on `{name}` of {operation} can overflow, and then every call is refused");
                let help = format!("give `{name}` a `minimum` and a `maximum` in the schema of {operation}");
                let word = format!("input.{name}");
                self.findings.push(parsed.error_at_word("policy-arithmetic", &word, what).with_help(help));
            }
        }
        self.findings.extend(cover::unknown_names(policy, self.model).into_iter().map(|f| parsed.place(f)));
        if cover::allows_everything(policy) {
            let text = format!("{} allows everything to everyone, but for what a forbid forbids", policy.id);
            self.findings.push(parsed.place(Finding::new(Severity::Warning, "policy-open", text)));
        }
    }

    /// Which annotations must and may stand on this policy, and whether its approvers can be found.
    fn obligations(&mut self, parsed: &Parsed<'_>, policy: &Policy) {
        let forbid = policy.cedar.effect() == Effect::Forbid;
        let holds = forbid && policy.plane == Plane::Agent && policy.lift != Lift::Never;
        if forbid && parsed.cedar.annotation("reason").is_none() {
            self.findings.push(parsed.error("policy-reason", format!("{}: a forbid needs `@reason`", parsed.name())));
        }
        for (key, _) in parsed.cedar.annotations() {
            let wanted = match key {
                "sample" if forbid => "a permit",
                "degrade" if !forbid || holds => "a forbid without an approval clause",
                "mode" if policy.plane == Plane::Admin => "policies for calls of agents",
                key if HOLD_KEYS.contains(&key) && !holds => "a forbid with an approval clause",
                "grant" if policy.lift == Lift::Dual => "a forbid that one approval lifts",
                _ => continue,
            };
            self.findings.push(parsed.error("policy-annotation", format!("`@{key}` belongs on {wanted}")));
        }
        match (&policy.annotations.approvers, holds) {
            (Some(approvers), true) => {
                let found = quorum::check(policy, approvers, self.model);
                self.findings.extend(found.into_iter().map(|f| parsed.place(f)));
            }
            (None, true) if parsed.cedar.annotation("approvers").is_none() => {
                let text = format!("{}: a forbid with an approval clause needs `@approvers`", parsed.name());
                self.findings.push(parsed.error("policy-approvers", text));
            }
            _ => {}
        }
        self.notes(parsed, policy, forbid, holds);
    }

    /// What a grant adds up must be an integer in each operation that the policy covers.
    fn sums(&mut self, parsed: &Parsed<'_>, policy: &Policy, generated: &Generated) {
        for path in policy.annotations.grant.iter().flat_map(|g| g.sums.keys()) {
            for operation in cover::unsummable(policy, path, self.model, generated) {
                let what = format!("`@grant` adds up `{path}`, which is no integer argument of {operation}");
                self.findings.push(parsed.error_at_word("policy-annotation", "sum=", what));
            }
        }
    }

    fn notes(&mut self, parsed: &Parsed<'_>, policy: &Policy, forbid: bool, holds: bool) {
        if forbid && policy.plane == Plane::Agent && !holds {
            self.findings.push(parsed.note(format!("{}: nobody can release this one. Intended?", parsed.name())));
        }
        if holds && policy.annotations.sla.is_none() {
            let (tier, clock) = match policy.lift {
                Lift::Dual => ("high", self.defaults.high.sla),
                _ => ("medium", self.defaults.medium.sla),
            };
            let clock = crate::call::duration_text(clock);
            self.findings.push(parsed.note(format!("{}: no @sla; using {clock} from reviews.{tier}", parsed.name())));
        }
    }

    /// Compiles the schema and type-checks every policy against it. A warning is an error.
    fn validate(&mut self, parsed: &[Parsed<'_>], generated: &Generated) -> Option<Schema> {
        let (schema, warnings) = match Schema::from_cedarschema_str(&generated.text) {
            Ok(ok) => ok,
            Err(e) => {
                let text = format!("the configuration makes no schema: {}", chain(&e));
                self.findings.push(Finding::error("policy-schema", text));
                return None;
            }
        };
        self.findings.extend(warnings.map(|w| Finding::error("policy-schema", w.to_string())));
        let validator = Validator::new(schema.clone());
        for p in parsed {
            self.type_check(p, &validator);
        }
        Some(schema)
    }

    fn type_check(&mut self, parsed: &Parsed<'_>, validator: &Validator) {
        let mut one = PolicySet::new();
        if let Err(e) = one.add(parsed.cedar.clone()) {
            self.findings.push(parsed.error("policy-unknown", e.to_string()));
            return;
        }
        let result = validator.validate(&one, ValidationMode::Strict);
        let mut found: Vec<Finding> =
            result.validation_errors().map(|e| diagnosed(e, "policy-type", parsed.source)).collect();
        if found.is_empty() {
            // With errors, what is suspect follows from them.
            found.extend(result.validation_warnings().map(|w| diagnosed(w, "policy-suspect", parsed.source)));
            self.findings.extend(vacuous(&parsed.cedar, validator).map(|n| parsed.vacuous(n)));
        }
        let mut found: Vec<Finding> =
            found.into_iter().map(|f| cover::reworded(f, parsed.cedar.id(), self.model)).collect();
        // One mistake is found once for each action that the policy covers.
        found.dedup_by(|b, a| (a.line, a.column, a.code) == (b.line, b.column, b.code));
        self.findings.extend(found);
    }
}

/// The first condition, counted from 0, that types alone make true: turned round, Cedar calls it impossible.
fn vacuous(policy: &cedar_policy::Policy, validator: &Validator) -> Option<usize> {
    let whole = policy.to_json().ok()?;
    let conditions = whole.get("conditions")?.as_array()?;
    let always = |condition: &serde_json::Value| -> Option<bool> {
        // What is in a group of actions changes with the configuration, and such a condition may wait for that.
        if condition.get("body")?.to_string().contains(r#"{"Var":"action"}"#) {
            return None;
        }
        let kind = if condition.get("kind")? == "when" { "unless" } else { "when" };
        let mut turned = whole.clone();
        let alone = serde_json::json!([{"kind": kind, "body": condition.get("body")?}]);
        turned.as_object_mut()?.insert("conditions".to_owned(), alone);
        let turned = cedar_policy::Policy::from_json(None, turned).ok()?;
        let result = validator.validate(&PolicySet::from_policies([turned]).ok()?, ValidationMode::Strict);
        Some(result.validation_passed() && result.validation_warnings().next().is_some())
    };
    conditions.iter().position(|c| always(c) == Some(true))
}

/// One of Cedar's diagnostics, as ours.
pub(super) fn diagnosed(diagnostic: &dyn Diagnostic, code: &'static str, source: &Source) -> Finding {
    let mut finding = Finding::error(code, diagnostic.to_string());
    finding.help = diagnostic.help().map(|h| h.to_string());
    let label = diagnostic.labels().and_then(|mut all| all.next());
    match label {
        Some(label) => {
            if let (None, Some(text)) = (&finding.help, label.label()) {
                finding.help = Some(text.to_owned());
            }
            finding.at(source, label.offset(), label.offset() + label.len())
        }
        None => finding.at(source, 0, 1),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Folder and file, for people: where the whole tree stands is no matter of theirs.
fn short(name: &str) -> String {
    let mut parts: Vec<&str> = name.rsplit('/').take(2).collect();
    parts.reverse();
    parts.join("/")
}
