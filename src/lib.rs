//! Holdpoint stands between AI agents and the tools they call: a policy enforcement point with Cedar embedded as its
//! decision point. Agents keep their code and only change a URL.
//!
//! # Life of a call
//!
//! A message arrives at a listener ([`wire`]), is read once by one strict reader, and goes to the core that serves its
//! connection. There it takes the one path that exists, [`pipeline`]:
//!
//! ```text
//! identify → recognize → check rates → validate → look up → authorize → (park …) → begin → forward → conclude
//! ```
//!
//! Each step consumes what the one before it proved: an `Incoming` becomes a `Draft`, a `Draft` whose arguments were
//! checked becomes a `Call`, policy mints a `Permit` for a `Call`, and only a `Permit` can be forwarded. A step that is
//! left out does not compile.
//!
//! A call that policy finds risky is parked ([`gates::hold`]): its record is durable before anybody hears of it, people
//! vote on its digest over the [`admin`] listener, and after the last vote everything is asked again before it is sent,
//! once. The socket, the 202, the MCP result and the review page are views of that one record ([`store`]).
//!
//! # Rooms, in the order a call meets them
//!
//! | room | what it knows |
//! |---|---|
//! | [`wire`] | bytes on the agents' side; protocols, no policy |
//! | [`call`] | the vocabulary: pure data, imports nothing else |
//! | [`pipeline`] | the path, top to bottom |
//! | [`gates`] | one file or folder for each gate |
//! | [`policy`] | Cedar as data: schema, load, lints |
//! | [`signals`] | facts for policies, one record for each call |
//! | [`store`] | durable state: domain steps over journal and index |
//! | [`journal`], [`audit`] | the append-only log, and its proof |
//! | [`snapshot`] | one version of routes, schemas, policies, limits |
//! | [`workbench`] | what policy authors use before a change rules: tests, explanations, replays |
//! | [`config`] | the file as written, all mistakes at once, the configuration as used |
//! | [`admin`] | reviewers and operators: API, page, health, metrics |
//! | [`notify`] | who is told of what happens: outboxes over the journal; webhooks, Slack, e-mail |
//! | [`inquiry`] | `/-/…`: what an agent may ask about its own calls |
//! | [`failpoint`] | where crash tests kill the process |
//! | [`telemetry`], [`tasks`], [`clock`] | metrics and log, spawning and draining, injected time |
//! | [`app`] | wires everything; [`cli`] and [`demo`] use it |
//! | [`init`] | a first configuration from what tools say of themselves |
//!
//! # Vocabulary
//!
//! **Call**: one attempt by an agent to use one operation. **Principal**: who calls, proven. **Tool**: one upstream API or
//! MCP server. **Operation**: one thing that a tool can do. **Permit**: proof that policy allowed this call. **Refusal**: a
//! gate's "no", expected, with a stable code. **Fault**: our own failure; always refuses. **Hold**, **approval**: a call
//! parked for a person, and that person's yes. **Fingerprint**: what makes two calls the same call. **Digest**: what
//! approvers vote on.

pub mod wire;

pub mod call;

pub mod pipeline;

pub mod gates;

pub mod policy;

pub mod signals;

pub mod store;

pub mod audit;
pub mod journal;

pub mod config;
pub mod snapshot;
pub mod workbench;

pub mod admin;
pub mod inquiry;
pub mod notify;

pub mod clock;
pub mod failpoint;
pub mod tasks;
pub mod telemetry;

pub mod app;
pub mod cli;
pub mod demo;
pub mod init;
