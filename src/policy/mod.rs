//! Cedar as data: what policies may name, how a set is loaded, and everything that is wrong with it at once.
//!
//! [`load`] reads a directory against a [`Model`] of the configuration. What comes out has no mistakes that a
//! machine can find; what the set decides is asked in [`crate::gates::authz`].

mod annotations;
mod cover;
mod depth;
mod files;
mod finding;
pub mod generated;
pub mod input;
mod lint;
#[cfg(test)]
mod lint_fuzz;
mod load;
mod model;
pub mod prove;
mod quorum;
#[cfg(test)]
pub(crate) mod sample;
pub mod schema;
mod set;
mod stages;
#[cfg(test)]
mod tests;
mod thresholds;

pub use annotations::{Annotations, Approvers, TOOL_OWNER, WORKFLOW_OWNER};
pub use depth::{count, roomy};
pub use finding::{Finding, Severity, Snippet, Source, nearest};
pub use lint::Lift;
pub use load::{load, load_sources};
pub use model::{Defaults, Model, Reviewer, TierDefaults};
pub use set::{Counts, Loaded, Plane, Policy};
pub use thresholds::{Border, Literal, borders};
