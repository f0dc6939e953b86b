//! Proofs about a set, by Cedar's symbolic compiler and the solver cvc5: for every call that the schema admits, not for
//! those that somebody thought of.
//!
//! Two questions are asked, operation by operation. Can a policy err? Then every call on which it errs is refused. And does
//! a claim hold? A claim is a forbid that the set must imply: with it beside the others nothing changes. The solver knows the
//! types of arguments and not their bounds, and skips what errs, as Cedar does: a claim that holds does hold, one that does
//! not may only lack the bounds.

use std::str::FromStr;

use cedar_policy::{Effect, PolicyId, PolicySet, RequestEnv, Schema, ValidationMode, Validator};
use cedar_policy_symcc::solver::{LocalSolver, Solver};
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet, Env};

use super::cover;
use super::finding::{Finding, Severity, Source};
use super::lint;
use super::load::diagnosed;
use super::set::{Loaded, Policy, scope_actions};
use crate::call::Operation;

/// What was proved.
#[derive(Debug, Default)]
pub struct Proofs {
    /// Policies of agents of which it was proved, for each operation they cover, that they cannot err.
    pub never_err: usize,
    /// Policies of agents.
    pub policies: usize,
    /// Claims that hold, by id.
    pub hold: Vec<String>,
    /// Claims that do not hold, and policies that may err: each with a call that shows it.
    pub findings: Vec<Finding>,
}

/// A forbid that the set must imply.
#[derive(Debug)]
pub struct Claim {
    id: String,
    cedar: cedar_policy::Policy,
    at: Finding,
    reads: Option<Vec<Vec<String>>>,
}

/// Reads claims: forbids with `@id`, of the types that the set has.
///
/// # Errors
/// Every mistake in the text.
pub fn claims(source: &Source, loaded: &Loaded) -> Result<Vec<Claim>, Vec<Finding>> {
    let set = PolicySet::from_str(&source.text)
        .map_err(|all| all.iter().map(|e| diagnosed(e, "claim", source)).collect::<Vec<_>>())?;
    let validator = Validator::new(loaded.schema().clone());
    let (mut claims, mut mistakes) = (Vec::new(), Vec::new());
    for policy in set.policies() {
        match claim(policy, source, &validator, loaded) {
            Ok(claim) => claims.push(claim),
            Err(all) => mistakes.extend(all),
        }
    }
    if claims.is_empty() && mistakes.is_empty() {
        mistakes.push(Finding::error("claim", format!("`{}` holds no claim", source.name)));
    }
    claims.sort_by_key(|c| c.at.line);
    if mistakes.is_empty() { Ok(claims) } else { Err(mistakes) }
}

fn claim(
    policy: &cedar_policy::Policy,
    source: &Source,
    validator: &Validator,
    loaded: &Loaded,
) -> Result<Claim, Vec<Finding>> {
    let (start, end) = policy.as_ref().loc().map_or((0, 1), |l| (l.start(), l.end()));
    let wrong = |what: &str| vec![Finding::error("claim", what).at(source, start, end)];
    let Some(id) = policy.annotation("id").map(str::to_owned) else { return Err(wrong("this claim has no `@id`")) };
    if policy.effect() != Effect::Forbid {
        return Err(wrong("a claim is a `forbid`: what the policies must never let through"));
    }
    let mut one = PolicySet::new();
    one.add(policy.clone()).map_err(|e| wrong(&e.to_string()))?;
    let checked = validator.validate(&one, ValidationMode::Strict);
    let mistakes: Vec<Finding> = checked
        .validation_errors()
        .map(|e| cover::reworded(diagnosed(e, "claim", source), policy.id(), loaded.model()))
        .collect();
    let tree = policy.to_pst().map_err(|e| wrong(&e.to_string()))?;
    let reads = lint::body(tree.body()).reads;
    let at = Finding::error("claim", "").at(source, start, end);
    let cedar = policy.new_id(PolicyId::new(format!("claim {id}")));
    if mistakes.is_empty() { Ok(Claim { id, cedar, at, reads }) } else { Err(mistakes) }
}

/// Starts cvc5 and proves what can be proved.
///
/// # Errors
/// In words: cvc5 is not there, or it gave up.
pub async fn prove(loaded: &Loaded, claims: &[Claim]) -> Result<Proofs, String> {
    let solver = LocalSolver::cvc5().map_err(|e| {
        format!("cvc5 cannot be started ({e}); install it (Debian: cvc5) or name it in the environment as CVC5")
    })?;
    let compiler = CedarSymCompiler::new(solver).map_err(|e| format!("cvc5 does not answer: {e}"))?;
    let own = loaded.policies().iter().filter(|p| p.plane == super::Plane::Agent && !p.built_in);
    let mut proving = Proving { compiler, loaded, claims, may_err: Vec::new(), broken: Vec::new() };
    for operation in &loaded.model().operations {
        proving.operation(operation).await.map_err(|e| format!("{}: {e}", operation.name))?;
    }
    let (may_err, broken) = (proving.may_err, proving.broken);
    let policies = own.count();
    let hold = claims.iter().filter(|c| broken.iter().all(|(id, _)| *id != c.id)).map(|c| c.id.clone());
    Ok(Proofs {
        never_err: policies - may_err.len(),
        policies,
        hold: hold.collect(),
        findings: broken.into_iter().chain(may_err).map(|(_, finding)| finding).collect(),
    })
}

struct Proving<'a, S: Solver> {
    compiler: CedarSymCompiler<S>,
    loaded: &'a Loaded,
    claims: &'a [Claim],
    /// By policy, the first operation on which it may err.
    may_err: Vec<(String, Finding)>,
    /// By claim, the first operation on which it does not hold.
    broken: Vec<(String, Finding)>,
}

type Tried<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A policy that is left out would make a proof worthless.
fn together<'p>(all: impl IntoIterator<Item = &'p cedar_policy::Policy>) -> Tried<PolicySet> {
    Ok(PolicySet::from_policies(all.into_iter().cloned())?)
}

impl<S: Solver> Proving<'_, S> {
    async fn operation(&mut self, operation: &Operation) -> Tried<()> {
        let loaded = self.loaded;
        let schema = loaded.schema();
        let Some(env) = environment(schema, operation) else { return Ok(()) };
        for policy in loaded.with_shadow(operation).into_iter().filter(|p| !p.built_in) {
            self.errs(policy, operation, &env, schema).await?;
        }
        let set = together(loaded.slice(operation).into_iter().map(|p| &p.cedar))?;
        let ours = CompiledPolicySet::compile(&set, &env, schema)?;
        for claim in self.claims.iter().filter(|c| covers(c, operation)) {
            self.implies(claim, &set, &ours, operation, &env).await?;
        }
        Ok(())
    }

    async fn errs(&mut self, policy: &Policy, operation: &Operation, env: &RequestEnv, schema: &Schema) -> Tried<()> {
        if self.may_err.iter().any(|(id, _)| *id == policy.id) {
            return Ok(());
        }
        let compiled = CompiledPolicy::compile(&policy.cedar, env, schema)?;
        if let Some(found) = self.compiler.check_never_errors_with_counterexample_opt(&compiled).await? {
            let text = format!("{}: not proved that it never errs on {}", policy.id, operation.name);
            let reads: Option<Vec<_>> = policy.reads.as_ref().map(|all| {
                let facts = all.iter().filter(|path| path.first().is_none_or(|first| first != "approval"));
                facts.cloned().collect()
            });
            let help = format!("it would on {}, if the schema let it in", shown(&found, reads.as_deref()));
            let finding = Finding::new(Severity::Warning, "policy-errs", text).with_help(help);
            self.may_err.push((policy.id.clone(), finding));
        }
        Ok(())
    }

    async fn implies(
        &mut self,
        claim: &Claim,
        set: &PolicySet,
        ours: &CompiledPolicySet,
        operation: &Operation,
        env: &RequestEnv,
    ) -> Tried<()> {
        if self.broken.iter().any(|(id, _)| *id == claim.id) {
            return Ok(());
        }
        let with: Vec<_> = set.policies().chain([&claim.cedar]).collect();
        let theirs = CompiledPolicySet::compile(&together(with)?, env, self.loaded.schema())?;
        if let Some(found) = self.compiler.check_implies_with_counterexample_opt(ours, &theirs).await? {
            let text = format!("`{}` does not hold for {}", claim.id, operation.name);
            let help = format!("policies allow {}", shown(&found, claim.reads.as_deref()));
            self.broken.push((claim.id.clone(), Finding { message: text, help: Some(help), ..claim.at.clone() }));
        }
        Ok(())
    }
}

/// The kind of question that an operation makes.
fn environment(schema: &Schema, operation: &Operation) -> Option<RequestEnv> {
    schema
        .request_envs()
        .find(|env| env.action().id().unescaped() == operation.name && env.principal().basename() == "Agent")
}

fn covers(claim: &Claim, operation: &Operation) -> bool {
    let ancestors = super::schema::action_ancestors(operation);
    scope_actions(&claim.cedar).is_none_or(|named| named.iter().any(|a| ancestors.contains(a)))
}

/// The members of a counterexample that matter, and the approval.
fn shown(found: &Env, reads: Option<&[Vec<String>]>) -> String {
    let context = found.request.context().and_then(|c| c.to_json_value().ok()).unwrap_or_default();
    let mut told: Vec<String> = Vec::new();
    for path in reads.into_iter().flatten() {
        let value = path.iter().try_fold(&context, |at, name| at.get(name));
        let line = value.map(|v| format!("{} {v}", path.strip_prefix(&["input".to_owned()]).unwrap_or(path).join(".")));
        told.extend(line.filter(|line| !told.contains(line)));
    }
    if told.is_empty() { format!("{context}") } else { told.join(", ") }
}
