//! The configuration as used: resolved, checked, with its secrets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::HeaderName;

use crate::call::{Digest, Ladder, Operation, Tool};

use super::Secret;
use super::lock::Locked;

/// One version of the configuration, complete and consistent.
#[derive(Debug)]
pub struct Config {
    /// Digest of the file's text and of every file it names but secrets.
    pub digest: Digest,
    /// Every file whose content is part of `digest`, but the configuration itself.
    pub covered: Vec<PathBuf>,
    /// Listeners.
    pub listen: ListenConfig,
    /// Durable state.
    pub state: StateConfig,
    /// Folder of `*.cedar` files.
    pub policy_dir: PathBuf,
    /// `policies.mode: observe`: policy is asked, and not obeyed.
    pub observe: bool,
    /// Identities.
    pub identity: IdentityConfig,
    /// Workflows by name.
    pub workflows: BTreeMap<String, Workflow>,
    /// For agents that name none.
    pub default_workflow: String,
    /// Tools in the order of their names.
    pub tools: Vec<ToolConfig>,
    /// Budgets.
    pub budgets: Vec<BudgetRule>,
    /// Rate limits.
    pub rates: Vec<RateRule>,
    /// Holds.
    pub reviews: ReviewRules,
    /// Who is told of what happens.
    pub notify: Vec<Arc<NotifyRule>>,
}

/// Listeners.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// Agents.
    pub agents: SocketAddr,
    /// Reviewers, operators, scrapers.
    pub admin: SocketAddr,
    /// Host names without port, lower case.
    pub allowed_hosts: Vec<String>,
    /// For calls in flight on SIGTERM.
    pub drain: Duration,
    /// Digest of certificate, key and client authority: a change of any needs a restart.
    pub tls_digest: Digest,
    /// Certificate and key, when TLS is on.
    pub tls: Option<TlsFiles>,
}

/// Server certificate and key, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Durable state.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// Folder.
    pub path: PathBuf,
    /// Seals payloads at rest; generated when absent.
    pub encryption_key: Option<[u8; 32]>,
    /// How long things are kept.
    pub keep: KeepFor,
    /// A second place for signed checkpoints.
    pub checkpoint_copy: Option<PathBuf>,
}

/// How long things are kept; `calls` and `artifacts` are at most `audit`.
#[derive(Debug, Clone, Copy)]
pub struct KeepFor {
    /// Concluded calls with their requests and answers.
    pub calls: Duration,
    /// Evidence.
    pub artifacts: Duration,
    /// Records of the journal.
    pub audit: Duration,
}

/// Identities.
#[derive(Debug)]
pub struct IdentityConfig {
    /// Default organisation.
    pub org: String,
    /// Static keys of agents.
    pub keys: Vec<AgentKey>,
    /// Signed tokens.
    pub jwt: Option<JwtRule>,
    /// Client certificates.
    pub mtls: Option<MtlsRule>,
    /// Reviewers by token.
    pub reviewers: Vec<Reviewer>,
    /// Reviewers who sign in at a provider.
    pub oidc: Option<Arc<OidcRule>>,
    /// Account (`issuer|subject`, e-mail) to person.
    pub people: BTreeMap<String, String>,
}

/// One agent key.
#[derive(Debug, Clone)]
pub struct AgentKey {
    /// The agent.
    pub agent: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Owning team.
    pub owner: Option<String>,
    /// The one person who runs it.
    pub operator: Option<String>,
    /// Organisation.
    pub org: String,
    /// SHA-256 of the key; the key itself is not kept.
    pub digest: Digest,
}

/// How tokens are checked.
#[derive(Debug, Clone)]
pub struct JwtRule {
    /// Required `iss`.
    pub issuer: String,
    /// Required `aud`.
    pub audience: String,
    /// Where the keys come from.
    pub keys: Keys,
    /// Allowed algorithms: asymmetric ones only.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Claim of the agent.
    pub agent_claim: String,
    /// Claim of the person acted for.
    pub user_claim: Option<String>,
    /// Claim of the one person who runs the agent.
    pub operator_claim: Option<String>,
    /// Claim of the groups.
    pub group_claim: Option<String>,
    /// Claim of the organisation.
    pub org_claim: Option<String>,
    /// Claim of the scopes.
    pub scope_claim: Option<String>,
    /// Default organisation.
    pub org: String,
    /// Owning team.
    pub owner: Option<String>,
}

/// Where a JWKS comes from.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Read at load.
    Set(Arc<jsonwebtoken::jwk::JwkSet>),
    /// Fetched, and fetched again when a key id is unknown.
    Url(Uri),
}

/// How client certificates are read.
#[derive(Debug, Clone)]
pub struct MtlsRule {
    /// Authority, PEM.
    pub ca: PathBuf,
    /// By the URI name (SPIFFE id), else by the subject's common name.
    pub by_uri: bool,
    /// Agents by that name.
    pub agents: BTreeMap<String, CertAgent>,
}

/// An agent that comes by certificate.
#[derive(Debug, Clone)]
pub struct CertAgent {
    /// The agent.
    pub agent: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Owning team.
    pub owner: Option<String>,
    /// The one person who runs it.
    pub operator: Option<String>,
    /// Organisation.
    pub org: String,
}

/// A reviewer by token.
#[derive(Debug, Clone)]
pub struct Reviewer {
    /// The person.
    pub user: String,
    /// Reviewer groups.
    pub groups: Vec<String>,
    /// E-mail.
    pub email: Option<String>,
    /// The token counts as strong authentication.
    pub mfa: bool,
    /// SHA-256 of the token.
    pub digest: Digest,
}

/// How reviewers sign in at an OpenID provider.
#[derive(Debug, Clone)]
pub struct OidcRule {
    /// The provider; equal to `issuer` of its discovery document and `iss` of its tokens.
    pub issuer: String,
    /// Where its discovery document is.
    pub discovery: Uri,
    /// This proxy's name there.
    pub client_id: String,
    /// This proxy's secret there.
    pub client_secret: Option<Secret>,
    /// Where the provider sends the browser back to.
    pub redirect_uri: String,
    /// Scopes, between spaces; `openid` is one.
    pub scope: String,
    /// Claim of the groups.
    pub group_claim: String,
    /// Claim of the person's name.
    pub user_claim: Option<String>,
    /// Allowed algorithms: asymmetric ones only.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Values of `amr` that tell a second factor.
    pub mfa_amr: Vec<String>,
    /// Values of `acr` that tell a second factor.
    pub mfa_acr: Vec<String>,
}

/// A workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// Owning team.
    pub owner: String,
    /// `assist`, `verify`, `execute` or `checkpointed`.
    pub stage: String,
    /// Groups or agents that may name it; `None` means all.
    pub agents: Option<Vec<String>>,
    /// Step names that metrics may show.
    pub steps: Vec<String>,
}

/// A tool with its upstream and operations.
#[derive(Debug)]
pub struct ToolConfig {
    /// The tool.
    pub tool: Arc<Tool>,
    /// Its upstream.
    pub upstream: UpstreamConfig,
    /// Its breaker.
    pub breaker: BreakerRule,
    /// REST: operations with method and path template (`/orders/{orderId}`).
    pub rest: Vec<(http::Method, String, Arc<Operation>)>,
    /// MCP: operations by tool name, from the lock.
    pub mcp: BTreeMap<String, Arc<Operation>>,
    /// MCP: names in the lock that no operation lists: refused, and named by `check`.
    pub unlisted: Vec<String>,
    /// MCP: the accepted definitions by name, listed under `operations` or not.
    pub pins: BTreeMap<String, Locked>,
    /// MCP: operations by method, for everything but `tools/call`.
    pub methods: BTreeMap<String, Arc<Operation>>,
}

impl ToolConfig {
    /// The tool's operations that are calls, of whichever protocol.
    pub fn calls(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.rest.iter().map(|r| &r.2).chain(self.mcp.values())
    }

    /// All its operations: calls, and the methods of its protocol.
    pub fn operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.calls().chain(self.methods.values())
    }
}

/// The server behind a tool.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// How it is reached.
    pub at: UpstreamAt,
    /// Deadline.
    pub timeout: Duration,
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum UpstreamAt {
    /// By HTTP.
    Http(HttpServer),
    /// As a child process, over its standard input and output.
    Stdio(StdioServer),
}

/// A server that is reached by HTTP.
#[derive(Debug, Clone)]
pub struct HttpServer {
    /// Origin: scheme and authority.
    pub origin: Uri,
    /// Base path without a slash at its end.
    pub base: String,
    /// Credential.
    pub auth: UpstreamAuth,
    /// Authority for TLS, PEM.
    pub ca: Option<PathBuf>,
}

/// A server that runs as a child process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioServer {
    /// The program: a name that is looked up in `PATH`, or an absolute path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, beside what is inherited.
    pub env: BTreeMap<String, Secret>,
    /// The folder that it runs in.
    pub cwd: PathBuf,
}

impl UpstreamConfig {
    /// The origin, or `stdio:` and the command.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.at {
            UpstreamAt::Http(http) => http.origin.to_string().trim_end_matches('/').to_owned(),
            UpstreamAt::Stdio(s) => {
                let command: Vec<&str> = std::iter::once(&s.program).chain(&s.args).map(String::as_str).collect();
                format!("stdio:{}", serde_json::json!(command))
            }
        }
    }

    /// Base path without a slash at its end; a command has none.
    #[must_use]
    pub fn base(&self) -> &str {
        if let UpstreamAt::Http(http) = &self.at { &http.base } else { "" }
    }

    /// Whether the client's own credential goes there.
    #[must_use]
    pub fn passes_through(&self) -> bool {
        matches!(&self.at, UpstreamAt::Http(HttpServer { auth: UpstreamAuth::PassThrough, .. }))
    }
}

/// The credential that goes upstream.
#[derive(Debug, Clone)]
pub enum UpstreamAuth {
    /// None.
    None,
    /// A header with a secret value.
    Header(HeaderName, Secret),
    /// The client's own `Authorization`.
    PassThrough,
}

/// When to stop calling a failing upstream.
#[derive(Debug, Clone, Copy)]
pub struct BreakerRule {
    /// Consecutive failures that open it.
    pub failures: u32,
    /// Within this time.
    pub within: Duration,
    /// How long it stays open before one probe.
    pub retry_after: Duration,
}

/// Scope of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetScope {
    /// A step of a run.
    Step,
    /// A run.
    Run,
    /// The person acted for, or the agent.
    User,
    /// The organisation.
    Org,
}

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRule {
    /// Scope.
    pub scope: BudgetScope,
    /// `calls` or a currency.
    pub unit: String,
    /// Limit in that unit (minor units for money).
    pub limit: i64,
    /// Length of a window.
    pub every: Option<Duration>,
    /// Percentage from which answers carry a warning.
    pub warn_at: i64,
}

/// Who shares a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RatePer {
    /// One agent in one operation: the most specific.
    AgentOperation,
    /// One agent.
    Agent,
    /// One operation.
    Operation,
    /// All.
    Total,
}

/// A rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateRule {
    /// Who shares it.
    pub per: RatePer,
    /// Only these operations; empty means all.
    pub operations: Vec<String>,
    /// How many …
    pub limit: u32,
    /// … in how long.
    pub period: Duration,
    /// How many at once.
    pub burst: u32,
}

/// One receiver, and what it is told.
#[derive(Debug)]
pub struct NotifyRule {
    /// Tells it from the others: its kind, and a digest of its address.
    pub name: String,
    /// Where events are posted.
    pub url: Uri,
    /// Keys that sign them: the one in force first.
    pub keys: Vec<Secret>,
    /// Only holds of these tiers; empty means all.
    pub tiers: Vec<crate::call::Tier>,
    /// Names of events; `hold.*` means all that begin so.
    pub events: Vec<String>,
}

impl NotifyRule {
    /// Whether it wants to hear of an event, and of holds of this tier.
    #[must_use]
    pub fn wants(&self, event: &str, tier: Option<crate::call::Tier>) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => event.starts_with(start),
            None => event == pattern,
        };
        let fits = self.tiers.is_empty() || tier.is_none_or(|t| self.tiers.contains(&t));
        fits && self.events.iter().any(named)
    }
}

/// Holds and reviews.
#[derive(Debug, Clone)]
pub struct ReviewRules {
    /// Where reviewers find the page.
    pub url: Option<String>,
    /// How long a held call waits in place.
    pub inline_wait: Duration,
    /// MCP: clients without tasks wait in rounds.
    pub mrtr_poll: bool,
    /// Medium: sla, expires, window.
    pub medium: (Duration, Duration, Duration),
    /// High: sla, expires, window.
    pub high: (Duration, Duration, Duration),
    /// Who is told of a hold that nobody decides.
    pub escalate: Ladder,
    /// A vote on a high hold needs a fresh sign-in.
    pub step_up: bool,
    /// Caps: per agent, in all.
    pub max_held: (usize, usize),
}
