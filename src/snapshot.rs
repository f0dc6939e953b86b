//! One version of routes, schemas, policies and limits, swapped as one. A reload builds a whole new one, or the old stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::json;

use crate::call::{Digest, Fault, GrantOver, Leans, Operation, Timestamp};
use crate::clock::Clock;
use crate::config::Config;
use crate::gates::authz::{ErrorHook, Policies};
use crate::gates::budget::Budgets;
use crate::gates::identity::{Fetch, Identity};
use crate::gates::rate::Rates;
use crate::gates::route::{Routes, Runs};
use crate::gates::schema::Schemas;
use crate::gates::upstream::{Endpoint, Endpoints, Servers};
use crate::policy::{self, Defaults, Finding, Loaded, Model, Reviewer, TierDefaults};

/// One immutable version.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration it was built from.
    pub config: Config,
    /// Who is calling.
    pub identity: Identity,
    /// Which operation.
    pub routes: Routes,
    /// How often.
    pub rates: Arc<Rates>,
    /// With which arguments.
    pub schemas: Schemas,
    /// Whether it may.
    pub policies: Policies,
    /// At what cost.
    pub budgets: Budgets,
    /// Where to.
    pub endpoints: Endpoints,
    /// When it was built.
    pub since: Timestamp,
    operations: HashMap<String, Arc<Operation>>,
}

/// What outlives a snapshot.
#[derive(Clone)]
pub struct Lasting {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Runs that are open.
    pub runs: Arc<Runs>,
    /// Tools that run as child processes.
    pub servers: Arc<Servers>,
    /// Gets key sets.
    pub fetch: Fetch,
    /// Counts policies that could not be evaluated.
    pub on_policy_error: ErrorHook,
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lasting")
    }
}

/// Why a snapshot cannot be built.
#[derive(Debug)]
pub enum Unbuilt {
    /// Mistakes in the policies, each with its place.
    Policies(Vec<Finding>),
    /// A schema that cannot be used, by operation.
    Schemas(Vec<(String, String)>),
    /// Our own failure.
    Fault(Fault),
}

impl std::fmt::Display for Unbuilt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Policies(all) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("\n"))
            }
            Self::Schemas(all) => {
                let all: Vec<String> = all.iter().map(|(op, why)| format!("error[schema]: {op}: {why}")).collect();
                f.write_str(&all.join("\n"))
            }
            Self::Fault(fault) => write!(f, "error: {}", fault.chain()),
        }
    }
}

impl std::error::Error for Unbuilt {}

/// What the configuration tells policy.
#[must_use]
pub fn model(config: &Config) -> Model {
    let identity = &config.identity;
    let keys = identity.keys.iter().flat_map(|k| k.groups.iter());
    let certificates = identity.mtls.iter().flat_map(|m| m.agents.values()).flat_map(|a| a.groups.iter());
    let owners = identity.keys.iter().filter_map(|k| k.owner.as_ref());
    let jwt_owner = identity.jwt.iter().filter_map(|j| j.owner.as_ref());
    Model {
        operations: config.tools.iter().flat_map(crate::config::ToolConfig::operations).cloned().collect(),
        tools: config.tools.iter().map(|t| Arc::clone(&t.tool)).collect(),
        agent_groups: keys.chain(certificates).cloned().collect::<BTreeSet<_>>(),
        teams: owners.chain(jwt_owner).chain(identity.reviewers.iter().flat_map(|r| &r.groups)).cloned().collect(),
        workflows: config.workflows.iter().map(|(n, w)| (n.clone(), Some(w.owner.clone()))).collect(),
        default_workflow: config.default_workflow.clone(),
        stages: config.workflows.iter().map(|(n, w)| (n.clone(), w.stage.clone())).collect(),
        stages_in_force: config.workflows.values().map(|w| w.stage.clone()).collect(),
        // Who is in a group of the provider, nobody can say beforehand.
        reviewers: identity.oidc.is_none().then(|| {
            let one = |r: &crate::config::Reviewer| Reviewer { user: person(identity, r), groups: r.groups.clone() };
            identity.reviewers.iter().map(one).collect()
        }),
    }
}

/// Who is behind a reviewer's account: two accounts of one person are no quorum.
fn person(identity: &crate::config::IdentityConfig, r: &crate::config::Reviewer) -> String {
    let accounts = [
        Some(format!("token|{}", r.user)),
        Some(format!("token:{}", r.user)),
        r.email.as_ref().map(|m| m.to_lowercase()),
    ];
    accounts.iter().flatten().find_map(|a| identity.people.get(a)).cloned().unwrap_or_else(|| r.user.clone())
}

/// The clocks of the tiers, where policies name none.
#[must_use]
pub fn defaults(config: &Config) -> Defaults {
    let clocks = |(sla, expires, window)| TierDefaults { sla, expires, window };
    Defaults { medium: clocks(config.reviews.medium), high: clocks(config.reviews.high) }
}

impl Snapshot {
    /// Builds a version; rate limits carry on from `before` while their rules are the same.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn build(config: Config, lasting: &Lasting, before: Option<&Self>) -> Result<Self, Unbuilt> {
        let loaded = policy::load(&config.policy_dir, &model(&config), defaults(&config)).map_err(Unbuilt::Policies)?;
        Self::with(config, loaded, lasting, before)
    }

    /// As [`Snapshot::build`], with policies that were loaded for this configuration.
    ///
    /// # Errors
    /// Everything else that is wrong, at once.
    pub fn with(config: Config, loaded: Loaded, lasting: &Lasting, before: Option<&Self>) -> Result<Self, Unbuilt> {
        let policies = Policies::new(loaded, Arc::clone(&lasting.on_policy_error)).map_err(Unbuilt::Fault)?;
        let policies = if config.observe { policies.observing() } else { policies };
        let all = config.tools.iter().flat_map(crate::config::ToolConfig::operations);
        let operations: HashMap<_, _> = all.map(|o| (o.name.clone(), Arc::clone(o))).collect();
        let bases = config.tools.iter().map(|t| (t.tool.name.clone(), t.upstream.base().to_owned())).collect();
        let schemas = Schemas::new(operations.values(), bases, Arc::clone(&lasting.clock));
        Self::check_schemas(&schemas, &config)?;
        let mut endpoints = Endpoints::new();
        for t in &config.tools {
            let endpoint = Endpoint::new(&t.tool.name, &t.tool.mount, &t.upstream, &lasting.servers);
            let endpoint = endpoint.map_err(Unbuilt::Fault)?;
            endpoints.insert(t.tool.name.clone(), Arc::new(endpoint));
        }
        let rates = before.map(|b| &b.rates).filter(|r| r.same_as(&config.rates)).cloned();
        Ok(Self {
            identity: Identity::new(&config.identity, Arc::clone(&lasting.fetch), Arc::clone(&lasting.clock)),
            routes: Routes::new(&config, Arc::clone(&lasting.runs)),
            rates: rates.unwrap_or_else(|| Arc::new(Rates::new(&config.rates))),
            schemas,
            policies,
            budgets: Budgets::new(config.budgets.clone()),
            endpoints,
            since: lasting.clock.now(),
            operations,
            config,
        })
    }

    /// A REST schema that cannot be used is the operator's own: a mistake. One of an MCP server stops that tool alone.
    fn check_schemas(schemas: &Schemas, config: &Config) -> Result<(), Unbuilt> {
        let rest: BTreeSet<&str> = config.tools.iter().flat_map(|t| &t.rest).map(|r| r.2.name.as_str()).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = schemas.broken().partition(|(op, _)| rest.contains(op));
        for (op, why) in theirs {
            tracing::error!(operation.name = op, why, "this tool's schema cannot be used; its calls are refused");
        }
        let ours: Vec<(String, String)> = ours.into_iter().map(|(o, w)| (o.to_owned(), w.to_owned())).collect();
        if ours.is_empty() { Ok(()) } else { Err(Unbuilt::Schemas(ours)) }
    }

    /// An operation by name, as it is configured in this version.
    #[must_use]
    pub fn operation(&self, name: &str) -> Option<&Arc<Operation>> {
        self.operations.get(name)
    }

    /// What rules calls of an operation that these policies let pass: a grant ends when any of it changes. `None` when
    /// one of them is not there.
    #[must_use]
    pub fn leans<'p>(
        &self,
        operation: &Operation,
        forbids: impl IntoIterator<Item = &'p str>,
        permits: impl IntoIterator<Item = &'p str>,
    ) -> Option<Leans> {
        let (forbids, permits) = (self.policies.texts(forbids)?, self.policies.texts(permits)?);
        let definition = self.definition(operation);
        Some(Leans { forbids, permits, schema: operation.schema_digest, definition })
    }

    /// Digest of what a tool and its operation are: where calls go, what they do, what its server says of it.
    fn definition(&self, operation: &Operation) -> Digest {
        let t = &operation.tool;
        let config = self.config.tools.iter().find(|c| c.tool.name == t.name);
        let pin = config.and_then(|c| c.pins.get(&operation.short)).map(|locked| locked.digest);
        Digest::of_json(&json!({
            "kind": t.kind, "upstream": t.upstream, "env": t.env, "data": t.data_classes, "route": operation.route,
            "effects": operation.effects.names(), "groups": operation.groups, "target": operation.target, "pin": pin,
        }))
    }

    /// Why a grant is over under this version, if it is.
    #[must_use]
    pub fn outlaws(&self, operation: &str, leans: &Leans) -> Option<GrantOver> {
        let Some(operation) = self.operation(operation) else { return Some(GrantOver::ToolChanged) };
        let names = |all: &'_ BTreeMap<String, Digest>| all.keys().cloned().collect::<Vec<_>>();
        let (forbids, permits) = (names(&leans.forbids), names(&leans.permits));
        let now = self.leans(operation, forbids.iter().map(String::as_str), permits.iter().map(String::as_str));
        let Some(now) = now else { return Some(GrantOver::PolicyChanged) };
        [
            (now.forbids == leans.forbids && now.permits == leans.permits, GrantOver::PolicyChanged),
            (now.schema == leans.schema, GrantOver::SchemaChanged),
            (now.definition == leans.definition, GrantOver::ToolChanged),
        ]
        .into_iter()
        .find_map(|(same, change)| (!same).then_some(change))
    }

    /// Digests of configuration and policies: what every record names.
    #[must_use]
    pub fn digests(&self) -> (Digest, Digest) {
        (self.config.digest, self.policies.digest())
    }
}

/// Where the version in force is found.
#[derive(Debug)]
pub struct Snapshots(ArcSwap<Snapshot>);

impl Snapshots {
    /// Begins with this one.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(first))
    }

    /// The one in force; a call keeps it to its end.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts another one in force.
    pub fn replace(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}
