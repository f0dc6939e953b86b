//! The file as written. Names here are the key names of the contract; nothing is resolved yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use super::file_notify::{Notify, NotifyTier, Slack, Smtp, Webhook};
pub(super) use super::file_tools::{
    Auth, Breaker, Cost, Diff, Effect, EnvValue, Evidence, Fence, HeldAs, Idempotency, Kind, Limits, Method, OneOrMany,
    Operation, Otherwise, PlainDiff, PlainFence, Release, Tool, Undo, Upstream,
};

/// Holdpoint's configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    #[expect(dead_code, reason = "the schema checks it; there is one version")]
    pub(super) version: u32,
    /// Where agents and reviewers connect.
    #[serde(default)]
    pub(super) listen: Listen,
    /// Where durable state lives.
    pub(super) state: State,
    /// The policy files.
    pub(super) policies: Policies,
    /// Who may call and who may review.
    pub(super) identity: Identity,
    /// Workflow for agents that name none.
    pub(super) default_workflow: Option<String>,
    /// Workflows that calls may stand in.
    #[serde(default)]
    pub(super) workflows: BTreeMap<String, Workflow>,
    /// The tools behind the proxy.
    pub(super) tools: BTreeMap<String, Tool>,
    /// Budgets.
    #[serde(default)]
    pub(super) budgets: Vec<Budget>,
    /// Rate limits.
    #[serde(default)]
    pub(super) rates: Vec<Rate>,
    /// Holds and reviews.
    #[serde(default)]
    pub(super) reviews: Reviews,
    /// Who is told of what happens.
    #[serde(default)]
    pub(super) notify: Vec<Notify>,
    /// Metrics.
    #[serde(default)]
    #[expect(dead_code, reason = "metrics are always served; the key states so")]
    pub(super) telemetry: Telemetry,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    /// Agents' listener, `127.0.0.1:8700` by default.
    pub(super) agents: Option<String>,
    /// Admin listener, `127.0.0.1:8701` by default.
    pub(super) admin: Option<String>,
    /// Host names that requests may carry. Loopback names by default.
    pub(super) allowed_hosts: Option<Vec<String>>,
    /// How long calls in flight may take to end on SIGTERM. `25s` by default.
    pub(super) drain: Option<String>,
    /// TLS for both listeners.
    pub(super) tls: Option<Tls>,
    /// Allows a listener that is not on loopback without TLS.
    #[serde(default)]
    pub(super) danger_plaintext: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// Certificate chain, PEM.
    pub(super) cert: FileRef,
    /// Private key, PEM.
    pub(super) key: FileRef,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRef {
    /// Path, relative to this file.
    pub(super) file: PathBuf,
}

/// A secret by reference: `{ env: NAME }` or `{ file: PATH }`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretRef {
    /// Name of an environment variable.
    pub(super) env: Option<String>,
    /// Path of a file, relative to this file; one trailing line end is left out.
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Folder of journal and index.
    pub(super) path: PathBuf,
    /// 32 bytes, hex, that seal payloads at rest. Generated beside the journal when absent.
    pub(super) encryption_key: Option<SecretRef>,
    /// How long things are kept.
    #[serde(default)]
    pub(super) keep: Keep,
    /// A file that each signed checkpoint is copied to; best on another disk.
    pub(super) checkpoint_copy: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keep {
    /// Concluded calls with their requests and answers; default 90d, at least 1d and as long as any `idempotency.keep`.
    pub(super) calls: Option<String>,
    /// Evidence; default 30d, at least 1d.
    pub(super) artifacts: Option<String>,
    /// Records of the journal; default 400d, at least as long as the others.
    pub(super) audit: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Policies {
    /// Folder of `*.cedar` files.
    pub(super) dir: PathBuf,
    /// Whether policy rules, or is only asked and its answers recorded.
    pub(super) mode: Option<PolicyMode>,
}

/// Whether policy rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PolicyMode {
    /// What policy says is done.
    Enforce,
    /// Every call runs; what policy would have said is recorded. Everything but policy stays.
    Observe,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Default organisation of every agent.
    pub(super) org: Option<String>,
    /// How agents prove themselves.
    pub(super) agents: Agents,
    /// How reviewers prove themselves.
    #[serde(default)]
    pub(super) reviewers: Reviewers,
    /// Accounts that are one person.
    #[serde(default)]
    pub(super) people: Vec<Person>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Agents {
    /// Static keys.
    #[serde(default)]
    pub(super) api_keys: Vec<ApiKey>,
    /// Signed tokens.
    pub(super) jwt: Option<Jwt>,
    /// Client certificates.
    pub(super) mtls: Option<Mtls>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKey {
    /// The agent that it stands for.
    pub(super) agent: String,
    /// One group.
    pub(super) group: Option<String>,
    /// Several groups.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// Owning team.
    pub(super) owner: Option<String>,
    /// The one person who runs it: never its approver.
    pub(super) operator: Option<String>,
    /// Organisation, else `identity.org`.
    pub(super) org: Option<String>,
    /// The key. At least 16 characters.
    pub(super) key: SecretRef,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    /// Required `iss`.
    pub(super) issuer: String,
    /// Required `aud`.
    pub(super) audience: String,
    /// Keys: `{ file: PATH }` or `{ url: URL }`.
    pub(super) jwks: Option<Jwks>,
    /// Allowed algorithms; `[RS256, ES256, EdDSA]` by default. Symmetric ones are refused.
    pub(super) algorithms: Option<Vec<String>>,
    /// Claim that names the agent; `sub` by default. Dots walk into objects.
    pub(super) agent_claim: Option<String>,
    /// Claim that names the person acted for.
    pub(super) user_claim: Option<String>,
    /// Claim that names the one person who runs the agent: never its approver.
    pub(super) operator_claim: Option<String>,
    /// Claim that lists the groups.
    pub(super) group_claim: Option<String>,
    /// Claim that names the organisation.
    pub(super) org_claim: Option<String>,
    /// Claim with scopes, shown to policy as the tag `scope`.
    pub(super) scope_claim: Option<String>,
    /// Owning team of agents that come by token.
    pub(super) owner: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwks {
    /// Path of a JWKS file.
    pub(super) file: Option<PathBuf>,
    /// Where the JWKS is fetched; `<issuer>/.well-known/jwks.json` when no `jwks` is given.
    pub(super) url: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mtls {
    /// Authority that signs client certificates, PEM.
    pub(super) ca: FileRef,
    /// What names the agent: `san_uri` (a SPIFFE id, the default) or `subject` (the common name).
    pub(super) agent: Option<CertName>,
    /// The agents that may come by certificate.
    pub(super) agents: Vec<CertAgent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CertName {
    SanUri,
    Subject,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CertAgent {
    /// The SPIFFE id or common name, exactly.
    pub(super) name: String,
    /// The agent that it stands for.
    pub(super) agent: String,
    /// Its groups.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// Owning team.
    pub(super) owner: Option<String>,
    /// The one person who runs it.
    pub(super) operator: Option<String>,
    /// Organisation, else `identity.org`.
    pub(super) org: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reviewers {
    /// Static tokens, for the page, the CLI and bots.
    #[serde(default)]
    pub(super) tokens: Vec<ReviewerToken>,
    /// Accounts in Slack whose buttons count. An address of e-mail links nobody.
    #[serde(default)]
    pub(super) slack: Vec<SlackReviewer>,
    /// Sign-in at an OpenID provider, for the page.
    pub(super) oidc: Option<Oidc>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Oidc {
    /// The provider, exactly as its discovery document and its tokens spell it.
    pub(super) issuer: String,
    /// What the provider calls this proxy. Its redirect URI there is `<reviews.url>/sign-in/callback`.
    pub(super) client_id: String,
    /// Without it this proxy is a public client, which PKCE alone protects.
    pub(super) client_secret: Option<SecretRef>,
    /// Scopes to ask for beside `openid`; `[profile, email]` by default.
    pub(super) scopes: Option<Vec<String>>,
    /// Claim that lists the reviewer groups; `groups` by default. Dots walk into objects.
    pub(super) group_claim: Option<String>,
    /// Claim that names the person, when the provider makes it unique and lets nobody choose it. Without it, and
    /// without `identity.people`, a person is called `issuer|sub`.
    pub(super) user_claim: Option<String>,
    /// Allowed algorithms of ID tokens; `[RS256, ES256, EdDSA]` by default. Symmetric ones are refused.
    pub(super) algorithms: Option<Vec<String>>,
    /// What the provider calls a second factor.
    #[serde(default)]
    pub(super) mfa: OidcMfa,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OidcMfa {
    /// Values of `amr`, any of which says so; `[mfa]` by default.
    pub(super) amr: Option<Vec<String>>,
    /// Values of `acr`, any of which says so; also asked for at a fresh sign-in.
    pub(super) acr: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReviewerToken {
    /// The person.
    pub(super) user: String,
    /// Reviewer groups.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// E-mail, to recognize the person behind other accounts.
    pub(super) email: Option<String>,
    /// Whether this token counts as strong authentication.
    #[serde(default)]
    pub(super) mfa: bool,
    /// The token. At least 16 characters.
    pub(super) token: SecretRef,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SlackReviewer {
    /// The person: who has a token of that name is the same.
    pub(super) user: String,
    /// Reviewer groups.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// Id of the workspace, `T…`.
    pub(super) team: String,
    /// Id of the member, `U…`: *Copy member ID* in the profile.
    pub(super) member: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    /// The name that counts.
    pub(super) user: String,
    /// `issuer|subject` of each account, `token:USER`, `slack:TEAM/MEMBER`, and e-mail addresses.
    pub(super) subjects: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Workflow {
    /// Owning team.
    pub(super) owner: String,
    /// `execute` by default.
    pub(super) stage: Option<Stage>,
    /// Agent groups or agents that may name it; all when absent.
    pub(super) agents: Option<Vec<String>>,
    /// Step names that metrics may show.
    #[serde(default)]
    pub(super) steps: Vec<String>,
}

/// How much a workflow may do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Reads run; writes are kept as proposals that people judge, and never sent.
    Assist,
    /// Reads run; a person looks at each write before it is sent.
    Verify,
    /// What policy says.
    Execute,
    /// What policy says; a word for policies to tell it from `execute`.
    Checkpointed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Per {
    Step,
    Run,
    User,
    Org,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    /// Scope.
    pub(super) per: Per,
    /// Calls in it.
    pub(super) calls: Option<i64>,
    /// Money in it, such as `500.00 EUR`.
    pub(super) money: Option<String>,
    /// It renews in windows of this length; without it, it lives as long as its scope (step, run).
    pub(super) every: Option<String>,
    /// From here on answers carry `Holdpoint-Budget`; `80%` by default.
    pub(super) warn_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum RatePer {
    #[serde(rename = "agent")]
    Agent,
    #[serde(rename = "agent+operation")]
    AgentOperation,
    #[serde(rename = "operation")]
    Operation,
    #[serde(rename = "total")]
    Total,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    /// Who shares it.
    pub(super) per: RatePer,
    /// Only these operations.
    pub(super) operations: Option<Vec<String>>,
    /// Such as `50/s`.
    pub(super) limit: String,
    /// How many at once; the limit's number by default.
    pub(super) burst: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reviews {
    /// Where reviewers find the page, for links.
    pub(super) url: Option<String>,
    /// How long a held call waits in place, `3s` by default.
    pub(super) inline_wait: Option<String>,
    /// MCP from 2026-07-28: a client that knows no tasks waits in rounds of 20 s, at most nine, which it makes by itself.
    /// Some clients take this for an error.
    #[serde(default)]
    pub(super) mrtr_poll: bool,
    /// Clocks of the medium tier.
    pub(super) medium: Option<TierClocks>,
    /// Clocks of the high tier, and the sign-in that it needs.
    pub(super) high: Option<HighTier>,
    /// Who is told of a hold that nobody decides, and when.
    #[serde(default)]
    pub(super) escalate: Vec<Escalate>,
    /// Caps.
    pub(super) max_held: Option<MaxHeld>,
}

/// One rung of the escalation ladder.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Escalate {
    /// How long after the hold was parked: `2x` its `sla`, or a time such as `20m`.
    pub(super) after: String,
    /// Who is told: a name in the event `hold.escalated` and on the page.
    pub(super) to: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierClocks {
    /// When it counts as late.
    pub(super) sla: Option<String>,
    /// From parking to the last vote.
    pub(super) expires: Option<String>,
    /// From the last vote to the send.
    pub(super) window: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HighTier {
    /// When it counts as late.
    pub(super) sla: Option<String>,
    /// From parking to the last vote.
    pub(super) expires: Option<String>,
    /// From the last vote to the send.
    pub(super) window: Option<String>,
    /// A vote needs a sign-in at the provider that is at most 15 min old, or a token whose entry says `mfa: true`.
    pub(super) step_up: Option<StepUp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepUp {
    /// At the provider of `identity.reviewers.oidc`.
    Oidc,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MaxHeld {
    /// Per agent, 100 by default.
    pub(super) per_agent: Option<usize>,
    /// In all, 10000 by default.
    pub(super) total: Option<usize>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Telemetry {
    /// `/metrics` on the admin listener; always served.
    #[expect(dead_code, reason = "`true` is the only value; the key lets a file say so")]
    #[schemars(extend("const" = true))]
    pub(super) metrics: Option<bool>,
}
