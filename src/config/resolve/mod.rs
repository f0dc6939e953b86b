//! From the file as written to the configuration as used, collecting every mistake on the way.

mod identity;
mod methods;
mod notify;
mod oidc;
mod operations;
mod own_reads;
mod preview;
mod reads;
mod reconcile;
mod reviews;
mod smtp;
mod tools;
mod undo;
mod upstream;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::call::{Digest, OwnRead};

use super::file;
use super::units;
use super::used::{
    BudgetRule, BudgetScope, Config, IdentityConfig, KeepFor, ListenConfig, RatePer, RateRule, StateConfig, TlsFiles,
    Workflow,
};

pub(super) use upstream::lone as lone_upstream;
pub use upstream::may_forward;

/// JSON Pointer and message.
pub(super) type Wrong = Vec<(String, String)>;

/// What the resolving steps share: the folder of the file, the mistakes so far, and what the digest covers.
struct Ctx<'a> {
    base: &'a Path,
    wrong: Wrong,
    covered: Vec<(String, PathBuf, Digest)>,
    /// Lock files may be missing: they are about to be written.
    unlocked: bool,
    /// Reads of the proxy's own, and where they stand: checked once all operations are known.
    own_reads: Vec<(String, OwnRead)>,
}

impl Ctx<'_> {
    fn err(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.wrong.push((pointer.into(), message.into()));
    }

    /// Relative to the file; `..` is taken back by name, so that messages read well.
    fn path(&self, p: &Path) -> PathBuf {
        let mut clean = PathBuf::new();
        for part in self.base.join(p).components() {
            let parent =
                part == Component::ParentDir && matches!(clean.components().next_back(), Some(Component::Normal(_)));
            if parent {
                clean.pop();
            } else {
                clean.push(part);
            }
        }
        clean
    }

    /// Takes the value, or notes the mistake.
    fn ok<T>(&mut self, pointer: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.err(pointer, message)).ok()
    }

    fn duration(&mut self, pointer: &str, text: Option<&String>, default: Duration) -> Duration {
        text.map_or(Some(default), |t| self.ok(pointer, units::duration(t))).unwrap_or(default)
    }

    /// Reads a file that the configuration names; its bytes are part of the configuration's digest.
    fn read(&mut self, pointer: &str, path: &Path) -> Option<String> {
        let full = self.path(path);
        let text = std::fs::read_to_string(&full).map_err(|e| format!("cannot read `{}`: {e}", full.display()));
        let text = self.ok(pointer, text)?;
        self.covered.push((path.display().to_string(), full, Digest::of(text.as_bytes())));
        Some(text)
    }

    fn secret(&mut self, pointer: &str, reference: &file::SecretRef) -> Option<String> {
        let text = match (&reference.env, &reference.file) {
            (Some(name), None) => {
                std::env::var(name).map_err(|_| format!("the environment variable `{name}` is not set"))
            }
            (None, Some(path)) => {
                let full = self.path(path);
                std::fs::read_to_string(&full)
                    .map(|t| t.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&t).to_owned())
                    .map_err(|e| format!("cannot read `{}`: {e}", full.display()))
            }
            _ => Err("give exactly one of `env` and `file`".into()),
        };
        self.ok(pointer, text)
    }
}

/// Resolves the file, or gives every mistake.
pub(super) fn resolve(file: file::File, base: &Path, text: &str, unlocked: bool) -> Result<Config, Wrong> {
    let mut ctx = Ctx { base, wrong: Vec::new(), covered: Vec::new(), unlocked, own_reads: Vec::new() };
    let mut listen = listen(&mut ctx, &file.listen);
    let state = state(&mut ctx, &file.state);
    let policy_dir = ctx.path(&file.policies.dir);
    if !policy_dir.is_dir() {
        ctx.err("/policies/dir", format!("`{}` is not a folder", policy_dir.display()));
    }
    let mut identity = identity::identity(&mut ctx, &file.identity);
    let at = file.reviews.url.as_deref();
    identity.oidc = file.identity.reviewers.oidc.as_ref().and_then(|o| oidc::oidc(&mut ctx, o, at, &listen));
    if identity.mtls.is_some() && listen.tls.is_none() {
        ctx.err("/identity/agents/mtls", "client certificates need `listen.tls`");
    }
    listen.tls_digest = tls_digest(&listen, &identity);
    let workflows = workflows(&file.workflows);
    let default_workflow = default_workflow(&mut ctx, file.default_workflow.as_deref(), &workflows);
    let tools = tools::tools(&mut ctx, &file.tools);
    own_reads::check(&mut ctx, &tools);
    let mut budgets: Vec<BudgetRule> = Vec::new();
    for (i, b) in file.budgets.iter().enumerate() {
        for rule in budget(&mut ctx, i, b) {
            let twice = |r: &BudgetRule| (r.scope, &r.unit, r.every) == (rule.scope, &rule.unit, rule.every);
            if budgets.iter().any(twice) {
                ctx.err(format!("/budgets/{i}"), "there is another budget of the same `per`, unit and `every`");
            }
            budgets.push(rule);
        }
    }
    let known: Vec<&str> = tools.iter().flat_map(|t| t.operations()).map(|o| o.name.as_str()).collect();
    let replayed = tools.iter().flat_map(|t| t.operations());
    if let Some(longest) = replayed.filter(|o| o.idempotency.keep > state.keep.calls).max_by_key(|o| o.idempotency.keep)
    {
        let text =
            format!("is shorter than `idempotency.keep` of `{}`: its answers could not be replayed", longest.name);
        ctx.err("/state/keep/calls", text);
    }
    let rates = file.rates.iter().enumerate().filter_map(|(i, r)| rate(&mut ctx, i, r, &known)).collect();
    let notify = notify::notify(&mut ctx, &file);
    let reviews = reviews::reviews(&mut ctx, &file.reviews);
    if reviews.step_up && file.identity.reviewers.oidc.is_none() {
        ctx.err("/reviews/high/step_up", "`oidc` needs `identity.reviewers.oidc`");
    }
    if !ctx.wrong.is_empty() {
        return Err(ctx.wrong);
    }
    let digest = digest(text, &ctx.covered);
    Ok(Config {
        digest,
        covered: ctx.covered.into_iter().map(|(_, path, _)| path).collect(),
        listen,
        state,
        policy_dir,
        observe: file.policies.mode == Some(file::PolicyMode::Observe),
        identity,
        workflows,
        default_workflow,
        tools,
        budgets,
        rates,
        reviews,
        notify,
    })
}

fn digest(text: &str, covered: &[(String, PathBuf, Digest)]) -> Digest {
    let files: BTreeMap<&str, String> = covered.iter().map(|(p, _, d)| (p.as_str(), d.to_string())).collect();
    Digest::of_json(&serde_json::json!({"config": Digest::of(text.as_bytes()).to_string(), "files": files}))
}

fn listen(ctx: &mut Ctx<'_>, l: &file::Listen) -> ListenConfig {
    let agents = address(ctx, "/listen/agents", l.agents.as_deref().unwrap_or("127.0.0.1:8700"));
    let admin = address(ctx, "/listen/admin", l.admin.as_deref().unwrap_or("127.0.0.1:8701"));
    let tls = l.tls.as_ref().map(|t| TlsFiles { cert: ctx.path(&t.cert.file), key: ctx.path(&t.key.file) });
    if let Some(tls) = &tls {
        for (pointer, path) in [("/listen/tls/cert", &tls.cert), ("/listen/tls/key", &tls.key)] {
            if !path.is_file() {
                ctx.err(pointer, format!("`{}` is not a file", path.display()));
            }
        }
    }
    for (pointer, addr) in [("/listen/agents", agents), ("/listen/admin", admin)] {
        if !addr.ip().is_loopback() {
            open_listener(ctx, pointer, l);
        }
    }
    let hosts = l.allowed_hosts.clone().unwrap_or_else(|| vec!["localhost".into(), "127.0.0.1".into(), "[::1]".into()]);
    ListenConfig {
        agents,
        admin,
        allowed_hosts: hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect(),
        drain: ctx.duration("/listen/drain", l.drain.as_ref(), Duration::from_secs(25)),
        tls_digest: Digest::of(b""),
        tls,
    }
}

/// What a reload must not change unseen: the acceptors are built once.
fn tls_digest(listen: &ListenConfig, identity: &IdentityConfig) -> Digest {
    let files = listen.tls.iter().flat_map(|t| [&t.cert, &t.key]).chain(identity.mtls.iter().map(|m| &m.ca));
    let all: Vec<String> = files.map(|f| Digest::of(&std::fs::read(f).unwrap_or_default()).to_string()).collect();
    Digest::of(all.join(",").as_bytes())
}

fn open_listener(ctx: &mut Ctx<'_>, pointer: &str, l: &file::Listen) {
    if l.tls.is_none() && !l.danger_plaintext {
        ctx.err(pointer, "not on loopback: give `listen.tls`, or say `danger_plaintext: true`");
    }
    if l.allowed_hosts.is_none() {
        ctx.err(pointer, "not on loopback: `listen.allowed_hosts` must name the hosts that clients use");
    }
}

fn address(ctx: &mut Ctx<'_>, pointer: &str, text: &str) -> SocketAddr {
    let parsed = text.parse().map_err(|_| format!("`{text}` is not an address such as `127.0.0.1:8700`"));
    ctx.ok(pointer, parsed).unwrap_or(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0))
}

fn state(ctx: &mut Ctx<'_>, s: &file::State) -> StateConfig {
    let key = s.encryption_key.as_ref().and_then(|r| {
        let hex = ctx.secret("/state/encryption_key", r)?;
        let digest: Result<Digest, String> = format!("sha256:{hex}").parse();
        ctx.ok("/state/encryption_key", digest.map_err(|_| "the key must be 64 hex digits (32 bytes)".into()))
    });
    let checkpoint_copy = s.checkpoint_copy.as_ref().map(|p| ctx.path(p));
    if checkpoint_copy.as_ref().and_then(|p| p.parent()).is_some_and(|dir| !dir.is_dir()) {
        ctx.err("/state/checkpoint_copy", "its folder does not exist");
    }
    let keep = keep(ctx, &s.keep);
    StateConfig { path: ctx.path(&s.path), encryption_key: key.map(|d| *d.as_bytes()), keep, checkpoint_copy }
}

fn keep(ctx: &mut Ctx<'_>, k: &file::Keep) -> KeepFor {
    let day = Duration::from_secs(86_400);
    let mut of = |name: &str, text: Option<&String>, days: u32| {
        let at = format!("/state/keep/{name}");
        let length = ctx.duration(&at, text, day * days);
        if length < day {
            ctx.err(&at, "must be at least `1d`");
        }
        length
    };
    let (calls, artifacts) = (of("calls", k.calls.as_ref(), 90), of("artifacts", k.artifacts.as_ref(), 30));
    let audit = of("audit", k.audit.as_ref(), 400);
    if audit < calls.max(artifacts) {
        ctx.err("/state/keep/audit", "must be at least as long as `calls` and `artifacts`: their records stand in it");
    }
    KeepFor { calls, artifacts, audit }
}

fn workflows(all: &BTreeMap<String, file::Workflow>) -> BTreeMap<String, Workflow> {
    let used = |(name, w): (&String, &file::Workflow)| {
        let stage = match w.stage.unwrap_or(file::Stage::Execute) {
            file::Stage::Assist => "assist",
            file::Stage::Verify => "verify",
            file::Stage::Execute => "execute",
            file::Stage::Checkpointed => "checkpointed",
        };
        let workflow = Workflow {
            name: name.clone(),
            owner: w.owner.clone(),
            stage: stage.into(),
            agents: w.agents.clone(),
            steps: w.steps.clone(),
        };
        (name.clone(), workflow)
    };
    all.iter().map(used).collect()
}

fn default_workflow(ctx: &mut Ctx<'_>, named: Option<&str>, all: &BTreeMap<String, Workflow>) -> String {
    match (named, all.len()) {
        (Some(name), _) if all.contains_key(name) => name.to_owned(),
        (Some(name), _) => {
            ctx.err("/default_workflow", format!("no workflow `{name}`"));
            String::new()
        }
        (None, 1) => all.keys().next().cloned().unwrap_or_default(),
        (None, 0) => {
            ctx.err("", "the key `workflows` must name at least one workflow");
            String::new()
        }
        (None, _) => {
            ctx.err("", "several workflows: `default_workflow` must say which one a call without a name stands in");
            String::new()
        }
    }
}

fn budget(ctx: &mut Ctx<'_>, i: usize, b: &file::Budget) -> Vec<BudgetRule> {
    let at = format!("/budgets/{i}");
    let scope = match b.per {
        file::Per::Step => BudgetScope::Step,
        file::Per::Run => BudgetScope::Run,
        file::Per::User => BudgetScope::User,
        file::Per::Org => BudgetScope::Org,
    };
    let every = b.every.as_ref().and_then(|t| ctx.ok(&format!("{at}/every"), units::duration(t)));
    if every.is_some_and(|e| e > Duration::from_secs(31 * 86_400) || e < Duration::from_secs(1)) {
        ctx.err(format!("{at}/every"), "must be between `1s` and `31d`");
    }
    if every.is_none() && matches!(scope, BudgetScope::User | BudgetScope::Org) {
        ctx.err(&at, "a budget per user or org needs `every`, such as `1d`");
    }
    let warn_at = b.warn_at.as_ref().map_or(Some(80), |t| ctx.ok(&format!("{at}/warn_at"), percent(t))).unwrap_or(80);
    let money = b.money.as_ref().and_then(|m| ctx.ok(&format!("{at}/money"), units::money(m)));
    let calls = b.calls.map(|c| (c, "calls".to_owned()));
    if b.calls.is_none() && b.money.is_none() {
        ctx.err(&at, "a budget needs `calls`, `money` or both");
    }
    if b.calls.is_some_and(|c| c < 0) {
        ctx.err(format!("{at}/calls"), "must not be negative");
    }
    let rule = |(limit, unit)| BudgetRule { scope, unit, limit, every, warn_at };
    calls.into_iter().chain(money).map(rule).collect()
}

fn percent(text: &str) -> Result<i64, String> {
    text.strip_suffix('%')
        .and_then(|n| n.parse().ok())
        .filter(|n| (1..=100).contains(n))
        .ok_or_else(|| format!("`{text}` is not a percentage such as `80%`"))
}

fn rate(ctx: &mut Ctx<'_>, i: usize, r: &file::Rate, known: &[&str]) -> Option<RateRule> {
    let at = format!("/rates/{i}");
    let (limit, period) = ctx.ok(&format!("{at}/limit"), units::rate(&r.limit))?;
    let operations = r.operations.clone().unwrap_or_default();
    for (k, name) in operations.iter().enumerate().filter(|(_, n)| !known.contains(&n.as_str())) {
        ctx.err(format!("{at}/operations/{k}"), format!("no operation `{name}`"));
    }
    let per = match r.per {
        file::RatePer::Agent => RatePer::Agent,
        file::RatePer::AgentOperation => RatePer::AgentOperation,
        file::RatePer::Operation => RatePer::Operation,
        file::RatePer::Total => RatePer::Total,
    };
    if r.burst == Some(0) {
        ctx.err(format!("{at}/burst"), "must be at least 1");
    }
    Some(RateRule { per, operations, limit, period, burst: r.burst.unwrap_or(limit).max(1) })
}
