//! A set of policies that loaded without a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::{ActionConstraint, Effect, EntityUid, Schema};

use super::annotations::Annotations;
use super::finding::{Finding, Source};
use super::input::Record;
use super::lint::Lift;
use super::model::{Defaults, Model};
use super::schema::action_ancestors;
use crate::call::{Digest, Operation};

/// Which questions a policy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Calls of agents.
    Agent,
    /// What people may do with holds and with Holdpoint itself.
    Admin,
}

/// One loaded policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`; empty on permits without one.
    pub reason: String,
    /// `file:line`.
    pub at: String,
    /// Which questions it answers.
    pub plane: Plane,
    /// How far approval lifts it, for forbids.
    pub lift: Lift,
    /// `@mode("shadow")`: asked beside the others, never enforced.
    pub shadow: bool,
    /// It stands in no file: it is what a stage demands.
    pub built_in: bool,
    /// All that its annotations say.
    pub annotations: Annotations,
    /// The context members that it reads, as paths; `None` when that cannot be told.
    pub reads: Option<Vec<Vec<String>>>,
    /// The policy itself, under its `@id`.
    pub cedar: cedar_policy::Policy,
}

impl Policy {
    /// Whether it forbids.
    #[must_use]
    pub fn is_forbid(&self) -> bool {
        self.cedar.effect() == Effect::Forbid
    }

    /// Its annotations as they are written.
    #[must_use]
    pub fn written(&self) -> BTreeMap<String, String> {
        self.cedar.annotations().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// Its scope, in Cedar's own spelling.
    #[must_use]
    pub fn scope_text(&self) -> String {
        let of = (self.cedar.principal_constraint(), self.cedar.action_constraint(), self.cedar.resource_constraint());
        format!("{of:?}")
    }

    /// Its conditions, in Cedar's own spelling.
    #[must_use]
    pub fn body_text(&self) -> String {
        let Ok(tree) = self.cedar.to_pst() else { return String::new() };
        tree.body().clauses().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Whether its action scope covers an operation. A policy that does not can never apply to it.
    #[must_use]
    pub fn covers(&self, operation: &Operation) -> bool {
        let Some(named) = scope_actions(&self.cedar) else { return self.plane == Plane::Agent };
        let ancestors = action_ancestors(operation);
        named.iter().any(|action| ancestors.contains(action))
    }
}

/// The actions that a policy's scope names; `None` when it names none.
#[must_use]
pub(super) fn scope_actions(policy: &cedar_policy::Policy) -> Option<Vec<String>> {
    let name = |uid: &EntityUid| uid.id().unescaped().to_owned();
    match policy.action_constraint() {
        ActionConstraint::Any => None,
        ActionConstraint::Eq(uid) => Some(vec![name(&uid)]),
        ActionConstraint::In(all) => Some(all.iter().map(name).collect()),
    }
}

/// How many policies a set has, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Permits: what agents may do, by themselves where no forbid says otherwise.
    pub low: usize,
    /// Forbids that one approval lifts.
    pub medium: usize,
    /// Forbids that only two people lift.
    pub high: usize,
    /// Forbids that nobody can lift.
    pub never: usize,
    /// Policies of the admin plane.
    pub admin: usize,
    /// Policies in shadow, in none of the others.
    pub shadow: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { low, medium, high, never, admin, shadow: _ } = self;
        write!(f, "low {low} · medium {medium} · high {high} · nobody can release {never} · admin {admin}")
    }
}

/// A set of policies that loaded without a mistake.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub(super) policies: Vec<Arc<Policy>>,
    pub(super) files: usize,
    pub(super) model: Arc<Model>,
    pub(super) defaults: Defaults,
    pub(super) schema: Arc<Schema>,
    pub(super) schema_text: String,
    pub(super) inputs: BTreeMap<String, Record>,
    pub(super) digest: Digest,
    pub(super) sources: Arc<[Source]>,
    pub(super) findings: Vec<Finding>,
}

impl Loaded {
    /// Every policy, in the order of the files.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// How many files they came from.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files
    }

    /// The configuration that they were loaded against.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Clocks where policies name none.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// The compiled schema.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The generated schema, in Cedar's notation.
    #[must_use]
    pub fn schema_text(&self) -> &str {
        &self.schema_text
    }

    /// The members of `context.input`, by operation.
    #[must_use]
    pub fn inputs(&self) -> &BTreeMap<String, Record> {
        &self.inputs
    }

    /// The files, by their names below the folder that they came from.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// SHA-256 over the names and bytes of the files.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Warnings and notes; a set with errors does not load.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Policies by what they do, for `check`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for policy in self.policies.iter().filter(|p| !p.built_in) {
            let counter = match (policy.plane, policy.is_forbid(), policy.lift) {
                _ if policy.shadow => &mut counts.shadow,
                (Plane::Admin, ..) => &mut counts.admin,
                (Plane::Agent, false, _) => &mut counts.low,
                (Plane::Agent, true, Lift::Granted) => &mut counts.medium,
                (Plane::Agent, true, Lift::Dual) => &mut counts.high,
                (Plane::Agent, true, Lift::Never) => &mut counts.never,
            };
            *counter += 1;
        }
        counts
    }

    /// The slice of an operation: the agent policies that can ever apply to it. Deciding by the slice is
    /// deciding by the whole set, since a policy outside it fails on its action scope, which cannot err.
    #[must_use]
    pub fn slice(&self, operation: &Operation) -> Vec<&Arc<Policy>> {
        self.with_shadow(operation).into_iter().filter(|p| !p.shadow).collect()
    }

    /// The slice of an operation as it would be if policies in shadow were enforced.
    #[must_use]
    pub fn with_shadow(&self, operation: &Operation) -> Vec<&Arc<Policy>> {
        self.policies.iter().filter(|p| p.plane == Plane::Agent && p.covers(operation)).collect()
    }

    /// Policies in shadow.
    #[must_use]
    pub fn shadows(&self) -> Vec<&str> {
        self.policies.iter().filter(|p| p.shadow).map(|p| p.id.as_str()).collect()
    }

    /// The policies of the admin plane: those whose scope names an admin action or `Action::"admin"`.
    #[must_use]
    pub fn admin(&self) -> Vec<&Arc<Policy>> {
        self.policies.iter().filter(|p| p.plane == Plane::Admin).collect()
    }

    /// Forbids that no approval lifts.
    #[must_use]
    pub fn nobody_can_release(&self) -> BTreeSet<&str> {
        let never = |p: &&Arc<Policy>| p.plane == Plane::Agent && p.is_forbid() && p.lift == Lift::Never && !p.shadow;
        self.policies.iter().filter(never).map(|p| p.id.as_str()).collect()
    }
}
