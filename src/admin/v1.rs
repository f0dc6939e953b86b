//! Every route of `/v1`, with what its description says of it. A new one is a line here, in the table of its subject.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::api;
use super::openapi::{
    self, All, Api, AuditLog, BatchDone, Breaker, Budget, Cluster, Comment, Decided, Draining, Grant, Handled, Json,
    List, Me, Op, Pause, Paused, PausedTool, Policies, Receipt,
};
use super::openapi::{
    Explanation, PolicyCheck, PolicyReplay, Receiver, Record, Replayed, Runs, Sample, Summary, Trust, Undone,
};
use super::{
    amend, audit, brought, decide, drain, events, grants, group, handling, include, kill, limits, listing, notices,
    policies, receipts, run, samples, tools, trust, undo, workbench,
};

const HOLD: &str = "A hold: its id; while it waits also a suffix of the id of 4 characters or more, or its code.";
const CALL: &str = "A call, by its whole id; a hold's id is its call's, too.";

/// The table.
pub(super) fn api() -> Api {
    let api = service(Api::new());
    let api = holds(api);
    let api = decisions(api);
    let api = handling(api);
    let api = calls(api);
    let api = grants(api);
    let api = samples(api);
    let api = audit(api);
    let api = limits(api);
    policies(api)
}

async fn description() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| openapi::document().to_string());
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

fn text() -> Value {
    json!({"type": "string"})
}

fn service(api: Api) -> Api {
    let me = Op::new::<Me>("whoAmI", "service", "Who asks, and what is in force");
    let description = Op::new::<Json>("describeApi", "service", "This document").open();
    let stream = Op::new::<Json>("followEvents", "events", "Steps of holds, as server-sent events")
        .more("Ids and summaries, of what the person may see. A stream ends after five minutes; `reset` says that what lies \
               between is not kept any more.")
        .events()
        .query("types", "Which, by the beginning of their names, separated by commas.", json!({"type": "string", "examples": ["hold.*"]}))
        .refuses(503, &["unavailable"]);
    let receivers =
        Op::new::<All<Receiver>>("listReceivers", "service", "Receivers of notifications, and what waits for them")
            .refuses(403, &["forbidden"]);
    let replay = Op::new::<Replayed>("replayEvents", "service", "Sends events to a receiver again")
        .more("Those that were given up, or those named; each carries the id that it had.")
        .about("A receiver's name.")
        .body::<notices::Replay>()
        .refuses(403, &["forbidden"]);
    let drain = Op::new::<Draining>("drain", "service", "Stops this process in order, as SIGTERM does")
        .more("New calls are refused from now on and told when to come again, calls under way end within `listen.drain`, and holds \
               are kept for the next start. The answer comes before the process ends.")
        .body::<drain::Stop>()
        .accepted()
        .refuses(403, &["forbidden"]);
    api.get(openapi::PATH, self::description, description)
        .get("/me", api::me, me)
        .get("/events", events::api, stream)
        .get("/webhooks", notices::list, receivers)
        .post("/webhooks/{name}/replay", notices::replay, replay)
        .post("/drain", drain::drain, drain)
}

fn holds(api: Api) -> Api {
    let list = listing::described_holds(Op::new::<List<Summary>>("listHolds", "holds", "Holds, newest first"));
    let show =
        Op::new::<Record>("showHold", "holds", "One hold").about(HOLD).versioned().refuses(409, &["ambiguous_id"]);
    let show = included(show);
    let wait = Op::new::<Record>("waitForHold", "holds", "One hold, once it has changed")
        .more("Or when the time is over. With `If-None-Match`, once it differs from that version.")
        .about(HOLD)
        .query("timeout", "Seconds.", json!({"type": "integer", "minimum": 0, "maximum": 60, "default": 25}))
        .if_none_match()
        .versioned()
        .refuses(409, &["ambiguous_id"]);
    let cluster =
        Op::new::<Cluster>("showCluster", "holds", "Alike holds, the odd ones first").about("A group of alike holds.");
    let batch = Op::new::<BatchDone>("decideBatch", "holds", "The same decision on alike holds")
        .more("Each is a decision of its own, with an outcome of its own.")
        .body::<group::Batch>()
        .refuses(404, &["not_found"])
        .refuses(409, &["not_in_cluster", "digest_changed", "not_opened"]);
    api.get("/holds", api::holds, list)
        .get("/holds/{id}", api::hold, show)
        .get("/holds/{id}/wait", api::wait, wait)
        .get("/clusters/{id}", group::show, cluster)
        .post("/holds/batch", group::batch, batch)
}

/// It can be read with more.
fn included(op: Op) -> Op {
    let words = include::WORDS.join("|");
    let schema = json!({"type": "string", "pattern": format!("^({words})(,({words}))*$"), "examples": ["raw,similar"]});
    op.query(
        "include",
        "What else, separated by commas: `raw`, its request for a shell; `trace`, how it got here; \
              `similar`, calls like it.",
        schema,
    )
}

/// What every decision on a hold may be refused with.
fn decision(op: Op) -> Op {
    op.about(HOLD)
        .if_match()
        .versioned()
        .refuses(403, &["forbidden", "not_in_group", "step_up_required", "channel_not_allowed", "self_review"])
        .refuses(409, &["ambiguous_id", "already_decided", "expired", "stale", "digest_changed"])
}

fn decisions(api: Api) -> Api {
    let approve = decision(Op::new::<Decided>("approveHold", "holds", "Counts a vote"))
        .more("The last one that is needed releases the call. With `grant`, calls like it pass by themselves from then on.")
        .body::<decide::Approve>()
        .gated()
        .refuses(403, &["already_counted"])
        .refuses(409, &["grant_needs_approval", "claimed_by_other"])
        .refuses(422, &["justification_required", "evidence_missing", "confirm_mismatch", "policy_forbids_now"])
        .refuses(422, &["grant_not_allowed", "grant_wider_than_hold"]);
    let reject = decision(Op::new::<Decided>(
        "rejectHold",
        "holds",
        "Says no: a veto before the last vote, a revocation after it",
    ))
    .body::<decide::Refuse>();
    let edit = decision(Op::new::<Record>("editHold", "holds", "Makes another call of it, which policy decides anew"))
        .more("Earlier votes are void. The operation never changes.")
        .body::<amend::Amend>()
        .gated()
        .refuses(409, &["claimed_by_other"])
        .refuses(422, &["policy_forbids_now"]);
    let withdraw = decision(Op::new::<Decided>("withdrawHold", "holds", "Takes it back, for the side that asked"))
        .body::<api::Withdraw>();
    api.post("/holds/{id}/approve", api::approve, approve)
        .post("/holds/{id}/reject", api::reject, reject)
        .post("/holds/{id}/edit", amend::edit, edit)
        .post("/holds/{id}/withdraw", api::withdraw, withdraw)
}

/// What may be done about a hold that decides nothing.
fn beside(op: Op) -> Op {
    op.about(HOLD)
        .if_match()
        .versioned()
        .refuses(403, &["forbidden", "not_in_group", "step_up_required", "channel_not_allowed"])
        .refuses(409, &["ambiguous_id", "already_decided", "expired", "stale"])
}

fn handling(api: Api) -> Api {
    let claim = beside(Op::new::<Handled>("claimHold", "holds", "Takes it in hand for a while"))
        .more("Others can neither vote on it nor change it meanwhile; they can reject it, or take it over.")
        .body::<handling::TakeInHand>()
        .refuses(403, &["self_review"])
        .refuses(409, &["claimed_by_other"]);
    let release = beside(Op::new::<Handled>("releaseHold", "holds", "Lets it go")).refuses(409, &["claimed_by_other"]);
    let comments = Op::new::<All<Comment>>("listComments", "holds", "What reviewers said of it, oldest first")
        .about(HOLD)
        .versioned()
        .refuses(409, &["ambiguous_id"]);
    let comment = beside(Op::new::<Handled>("commentHold", "holds", "Says something to the other reviewers"))
        .body::<handling::Say>()
        .refuses(409, &["too_many"]);
    let bring = beside(Op::new::<Handled>("attachEvidence", "holds", "Attaches evidence, which nobody has verified"))
        .body::<brought::Bring>()
        .or_form::<brought::BringFile>()
        .more("JSON, or a form, which may carry a file. A file is shown to nobody as a page: reviewers take it away.")
        .refuses(409, &["too_many"]);
    let ask = beside(Op::new::<Handled>("askForEvidence", "holds", "Asks the agent for evidence"))
        .body::<handling::AskEvidence>()
        .refuses(409, &["too_many"]);
    let escalate = beside(Op::new::<Handled>("escalateHold", "holds", "Brings it before others"))
        .more("Receivers of `hold.escalated` are told. Who may approve it stays what policy says.")
        .body::<handling::Escalate>()
        .refuses(409, &["too_many"]);
    api.post("/holds/{id}/claim", handling::claim_it, claim)
        .delete("/holds/{id}/claim", handling::release, release)
        .get("/holds/{id}/comments", handling::comments, comments)
        .post("/holds/{id}/comments", handling::comment, comment)
        .post("/holds/{id}/evidence", handling::bring_evidence, bring)
        .post("/holds/{id}/evidence-requests", handling::ask_evidence, ask)
        .post("/holds/{id}/escalate", handling::escalate, escalate)
}

fn calls(api: Api) -> Api {
    let list = listing::described(Op::new::<List<Summary>>("listCalls", "calls", "Calls, newest first"));
    let show = included(Op::new::<Record>("showCall", "calls", "One call").about(CALL).versioned());
    let reconcile = Op::new::<Decided>("reconcileCall", "calls", "Says what became of a call whose outcome is unknown")
        .more("It counts once a second person says the same.")
        .about(CALL)
        .body::<api::Settle>()
        .if_match()
        .versioned()
        .refuses(
            403,
            &["forbidden", "step_up_required", "channel_not_allowed", "self_review", "already_counted", "not_in_group"],
        )
        .refuses(409, &["already_decided", "expired", "stale", "too_early"])
        .refuses(422, &["justification_required"]);
    let undo = Op::new::<Undone>("undoCall", "calls", "Takes an executed call back, by a new call")
        .more("Asked twice, it is the same call. Policy may hold it.")
        .about(CALL)
        .body::<undo::Wish>()
        .versioned()
        .gated()
        .refuses(403, &["forbidden", "step_up_required", "channel_not_allowed", "not_in_group"])
        .refuses(409, &["not_executed", "not_undoable", "undo_too_late"])
        .refuses(422, &["justification_required", "policy_forbids_now"]);
    let run = Op::new::<Runs>("showRun", "calls", "One run: its steps, calls and evidence, as a graph")
        .more("A run's name is the agent's own: the same name of another caller is another run.")
        .about("The run, as its agent named it.")
        .query("agent", "Of this agent only.", text());
    api.get("/runs/{id}", run::show, run)
        .get("/calls", api::calls, list)
        .get("/calls/{id}", api::call, show)
        .post("/calls/{id}/reconcile", api::reconcile, reconcile)
        .post("/calls/{id}/undo", undo::undo, undo)
}

fn grants(api: Api) -> Api {
    let list = Op::new::<List<Grant>>("listGrants", "grants", "Grants, newest first")
        .query("state", "Whether they still let calls pass.", json!({"type": "string", "enum": ["live", "ended"]}))
        .query("op", "By operation.", text())
        .query("agent", "By agent.", text())
        .pages();
    let give = Op::new::<Grant>("giveGrant", "grants", "Gives one, from a hold that was approved")
        .more("Every argument is pinned to its value in the approved call unless it is loosened here; what is not said is as \
               wide as policy allows.")
        .body::<grants::Given>()
        .if_match()
        .gated()
        .refuses(403, &["forbidden", "not_in_group", "step_up_required", "channel_not_allowed", "self_review"])
        .refuses(404, &["not_found"])
        .refuses(409, &["ambiguous_id", "digest_changed", "already_decided", "expired", "stale"])
        .refuses(409, &["grant_needs_approval", "already_granted"])
        .refuses(422, &["justification_required", "grant_not_allowed", "grant_wider_than_hold", "policy_forbids_now"]);
    let grant = "A grant, by its whole id.";
    let show = Op::new::<Grant>("showGrant", "grants", "One grant").about(grant);
    let revoke = Op::new::<Grant>("revokeGrant", "grants", "Takes it back")
        .about(grant)
        .refuses(403, &["forbidden"])
        .refuses(409, &["already_ended"]);
    api.get("/grants", grants::list, list)
        .post("/grants", grants::give, give)
        .get("/grants/{id}", grants::show, show)
        .delete("/grants/{id}", grants::revoke, revoke)
}

fn samples(api: Api) -> Api {
    let list = Op::new::<List<Sample>>("listSamples", "samples", "Sampled calls, newest first")
        .query("state", "Whether somebody has judged them.", json!({"type": "string", "enum": ["open", "judged"]}))
        .query("op", "By operation.", text())
        .pages()
        .refuses(403, &["forbidden"]);
    let judge = Op::new::<Sample>("judgeSample", "samples", "Says what one thinks of it")
        .about("A sampled call, by its whole id.")
        .body::<samples::Said>()
        .refuses(403, &["forbidden", "self_review"])
        .refuses(409, &["already_judged"]);
    api.get("/samples", samples::list, list).post("/samples/{id}", samples::verdict, judge)
}

fn limits(api: Api) -> Api {
    let breakers = Op::new::<All<Breaker>>("listBreakers", "limits", "Whether calls flow to each tool")
        .refuses(403, &["forbidden"]);
    let reset = Op::new::<Breaker>("resetBreaker", "limits", "Lets calls flow to a tool again at once")
        .about("A tool's name.")
        .body::<limits::ResetBreaker>()
        .refuses(403, &["forbidden"]);
    let budgets = Op::new::<All<Budget>>("listBudgets", "limits", "Budgets in use, the fullest first")
        .more("At most 1,000.")
        .refuses(403, &["forbidden"]);
    let trust = Op::new::<All<Trust>>("listTrust", "limits", "How far agents are trusted, the least first")
        .more("By agent, workflow and operation. Of what is not listed nothing is known yet: 50. At most 1,000.")
        .query("agent", "Of this agent only.", text())
        .query("workflow", "In this workflow only.", text())
        .query("op", "With this operation only.", text())
        .refuses(403, &["forbidden"]);
    let api = api.get("/trust", trust::list, trust);
    let pauses = Op::new::<All<Pause>>("listPauses", "limits", "What the kill switch has stopped, the oldest first");
    let kill = Op::new::<Paused>("kill", "limits", "Stops everything, an agent, a workflow or a tool")
        .more("None of its calls begins any more, and the clocks of those that wait stand still. Asked twice, it is the same pause. \
               Calls that were sent before cannot be taken back.")
        .body::<kill::Switch>()
        .refuses(403, &["forbidden"]);
    let resume = Op::new::<Paused>("resume", "limits", "Lets what was stopped go on")
        .body::<kill::Switch>()
        .refuses(403, &["forbidden"])
        .refuses(409, &["not_stopped"]);
    let api =
        api.get("/kill", kill::list, pauses).post("/kill", kill::kill, kill).post("/resume", kill::resume, resume);
    let top_up = Op::new::<Budget>("topUpBudget", "limits", "Gives one budget more room")
        .more("For as long as its window lasts; without a window, as long as its owner is remembered. A retry with the same \
               `Idempotency-Key` adds nothing, also after a restart.")
        .about("A budget in use, as the list names it.")
        .body::<limits::MoreRoom>()
        .refuses(403, &["forbidden"])
        .refuses(409, &["window_over", "too_many"]);
    api.get("/breakers", limits::breakers, breakers)
        .post("/breakers/{id}/reset", limits::reset, reset)
        .get("/budgets", limits::budgets, budgets)
        .post("/budgets/{id}/topup", limits::top_up, top_up)
}

fn audit(api: Api) -> Api {
    let receipt = Op::new::<Receipt>("showReceipt", "audit", "What was decided and done, and where that is recorded")
        .more("`holdpoint audit prove` proves that a record is in the signed log.")
        .about("A receipt: `rcpt_` and the 26 characters of its call's id, once the call has ended.")
        .versioned();
    let api = api.get("/receipts/{id}", receipts::show, receipt);
    let list = Op::new::<AuditLog>("listRecords", "audit", "Records of the journal, newest first")
        .more("What each says in a line; `holdpoint audit export` has them whole. Looks at 20,000 records at most: `next` \
               goes on from there.")
        .query("kind", "Such as `voted`; a last `*` stands for anything.", json!({"type": "string", "examples": ["admin.*"]}))
        .query("who", "By who did it.", text())
        .query("call", "About this call or hold.", text())
        .pages()
        .refuses(403, &["forbidden"])
        .refuses(500, &["journal_damaged"]);
    api.get("/audit", audit::list, list)
}

fn policies(api: Api) -> Api {
    let list = Op::new::<Policies>("listPolicies", "policies", "The policies in force").refuses(403, &["forbidden"]);
    let activate =
        Op::new::<Policies>("activatePolicies", "policies", "Puts the files as they are now in force: all or nothing")
            .refuses(403, &["forbidden"])
            .refuses(422, &["policy_rejected"]);
    let api = authoring(api);
    let paused =
        Op::new::<All<PausedTool>>("listPausedTools", "policies", "Tools whose definition nobody has accepted yet")
            .refuses(403, &["forbidden"]);
    api.get("/policies", policies::list, list).post("/policies/activate", policies::activate, activate).get(
        "/tools/paused",
        tools::paused,
        paused,
    )
}

/// What policy authors ask before a change rules.
fn authoring(api: Api) -> Api {
    let asked = |op: Op| op.refuses(403, &["forbidden"]).refuses(429, &["busy"]);
    let check = asked(Op::new::<PolicyCheck>("checkPolicies", "policies", "Looks for mistakes; puts nothing in force"))
        .more("With `files` at that set of policies, else at the files as they are now; at the configuration in both cases. \
               `accepted` says whether all of it could be put in force.")
        .body::<workbench::Check>();
    let explain = asked(Op::new::<Explanation>("explainCall", "policies", "Why policy judges a call as it does"))
        .more("And the closest change that would alter it, under the policies in force. Either a `call` that was recorded, or \
               one that nobody makes, by `op`. What records do not show is not asked about: where a policy reads an argument \
               that is redacted, there is no answer.")
        .body::<workbench::Explain>()
        .refuses(404, &["not_found"])
        .refuses(422, &["not_explainable"])
        .refuses(500, &["journal_damaged"]);
    let replay = asked(Op::new::<PolicyReplay>("replayCalls", "policies", "Recorded calls, judged by other policies"))
        .more("By `files`, else by the files as they are now, beside the policies in force. What loosens comes first; at most \
               200 calls are listed.")
        .body::<workbench::Replay>()
        .refuses(422, &["policy_rejected", "too_many_calls", "took_too_long"])
        .refuses(500, &["journal_damaged"]);
    api.post("/policies/check", workbench::check, check).post("/explain", workbench::explain, explain).post(
        "/replay",
        workbench::replay,
        replay,
    )
}
