//! What policy authors use before a change rules: tests, explanations, replays of recorded calls, comparisons. It asks
//! the same engine as the proxy, and decides nothing.

pub mod case;
pub mod check;
pub mod diff;
pub mod draft;
pub mod explain;
pub mod history;
pub mod replay;
pub mod suite;
pub mod testing;
pub mod told;
mod vary;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::gates::authz::Policies;
use crate::gates::schema::Schemas;
use crate::policy::{self, Finding, Loaded, Model, Source};
use crate::snapshot;

pub use case::Case;

/// A set of policies with everything that is needed to ask it about calls that nobody makes.
#[derive(Debug)]
pub struct Bench {
    /// The set.
    pub policies: Policies,
    /// The schemas of the configuration's operations.
    pub schemas: Schemas,
}

impl Bench {
    /// Loads the policies of a folder against a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with the set.
    pub fn open(config: &Config, dir: &Path) -> Result<Self, Vec<Finding>> {
        Self::around(config, policy::load(dir, &model(config), snapshot::defaults(config))?)
    }

    /// Takes these policies.
    ///
    /// # Errors
    /// Everything that is wrong with the set.
    pub fn of(config: &Config, sources: &[Source]) -> Result<Self, Vec<Finding>> {
        Self::around(config, policy::load_sources(sources, &model(config), snapshot::defaults(config))?)
    }

    fn around(config: &Config, loaded: Loaded) -> Result<Self, Vec<Finding>> {
        let operations: Vec<_> = config.tools.iter().flat_map(crate::config::ToolConfig::operations).cloned().collect();
        let schemas = Schemas::new(&operations, HashMap::new(), Arc::new(SystemClock));
        let policies = Policies::new(loaded, Arc::new(|_| {}))
            .map_err(|fault| vec![Finding::error("policy-internal", fault.chain())])?;
        Ok(Self { policies, schemas })
    }
}

fn model(config: &Config) -> Model {
    // A test may put a workflow into any stage.
    let stages_in_force = case::STAGES.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    Model { stages_in_force, ..snapshot::model(config) }
}

#[cfg(test)]
pub(crate) mod tests;
