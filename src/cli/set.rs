//! The policies that a verb is about: a configuration, and a folder that may be another one than it names.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::app;
use crate::call::Timestamp;
use crate::config::Config;
use crate::workbench::Bench;
use crate::workbench::history::{self, Limits, Recorded};

/// Which configuration and which policies.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Which {
    /// The configuration.
    #[arg(long, default_value = "holdpoint.yaml", value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Other policies than the configuration names.
    #[arg(long, value_name = "DIR")]
    pub(super) policies: Option<PathBuf>,
}

impl Which {
    /// The configuration; `None` after its mistakes were printed.
    pub(super) fn config(&self) -> Option<Config> {
        app::load(&self.config).map_err(complain).ok()
    }

    /// The folder of the policies.
    pub(super) fn dir(&self, config: &Config) -> PathBuf {
        self.policies.clone().unwrap_or_else(|| config.policy_dir.clone())
    }
}

/// The policies of a folder, ready to be asked; `None` after their mistakes were printed.
pub(super) fn bench(config: &Config, dir: &Path) -> Option<Bench> {
    let opened = Bench::open(config, dir);
    opened.map_err(|all| all.iter().filter(|f| f.severity == crate::policy::Severity::Error).for_each(complain)).ok()
}

/// A mistake in what was given, on stderr.
pub(super) fn complain(mistake: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "{mistake}"));
}

/// The recorded call whose id ends so.
pub(super) fn recorded(config: &Config, log: Option<&Path>, id: &str) -> anyhow::Result<Recorded> {
    let path = log.unwrap_or_else(|| history::folder(config));
    let history = history::read(path, Timestamp::from_millis(0), Limits::NONE)
        .with_context(|| format!("the records in `{}` cannot be read", path.display()))?;
    only(history.calls, id, |c| c.id.to_string())
}

/// The one whose id ends so.
fn only<T>(all: Vec<T>, suffix: &str, id: impl Fn(&T) -> String) -> anyhow::Result<T> {
    let bare = suffix.rsplit('_').next().unwrap_or(suffix);
    let mut found: Vec<T> = all.into_iter().filter(|t| !bare.is_empty() && id(t).ends_with(bare)).collect();
    match (found.len(), found.pop()) {
        (1, Some(one)) => Ok(one),
        (0, _) => {
            anyhow::bail!("no recorded call `{suffix}` of which policy was asked; `holdpoint calls ls` lists ids")
        }
        (n, _) => anyhow::bail!("{n} recorded calls end in `{suffix}`; give more of the id"),
    }
}
