//! The receipt of a call: what was decided and done, and where that stands in the signed log.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::call::{CallId, Fault, ReceiptId};
use crate::store::{CallRecord, Logged};

use super::Desk;
use super::api::{self, Answer, Asked};
use super::problem::Problem;
use super::who::Who;

pub(super) async fn show(State(admin): State<Arc<Desk>>, who: Who, Path(id): Path<String>) -> Answer {
    let id: ReceiptId = id.parse().map_err(|_| Problem::not_found())?;
    let asked = Asked::new(admin, who);
    let record = asked.admin.store.get(CallId::from_bits(id.bits())).await?.ok_or_else(Problem::not_found)?;
    let asker = asked.asker();
    let may = asker.may("call.view", &record) || (record.terms.is_some() && asker.may("hold.view", &record));
    if !may || !record.state.is_final() {
        return Err(Problem::not_found());
    }
    let lines = logged(&asked.admin, &record).await?;
    Ok(api::ok(&receipt(id, &record, &lines, asked.admin.store.signed()), Some(record.version)))
}

/// The records that the call is read back from.
async fn logged(desk: &Arc<Desk>, record: &CallRecord) -> Result<Vec<Logged>, Problem> {
    let (desk, frames) = (Arc::clone(desk), record.frames.clone());
    let read = move || frames.iter().map(|seq| desk.store.logged(*seq)).collect::<Result<Vec<_>, Fault>>();
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.map_err(|e| Fault::caused("records could not be read", e))??)
}

fn receipt(id: ReceiptId, record: &CallRecord, lines: &[Logged], signed: u64) -> Value {
    let approval = |a: &crate::store::Approval| {
        json!({"by": a.person, "groups": a.groups, "at": a.at, "channel": a.channel, "digest": a.digest,
            "justification": a.justification})
    };
    let line =
        |l: &Logged| json!({"seq": l.seq, "at": l.at, "kind": l.kind, "hash": l.hash, "signed": l.seq <= signed});
    json!({
        "id": id, "call": record.id, "state": record.state.as_str(), "op": record.operation, "title": record.title,
        "digest": record.digest, "policies": record.policies, "policy_digest": record.policy_digest,
        "config_digest": record.config_digest, "grant": record.grant,
        "approvals": record.approvals.iter().map(approval).collect::<Vec<_>>(),
        "answer": record.answer.as_ref().map(|a| json!({"status": a.status, "bytes": a.len, "sha256": a.digest})),
        "ended": record.updated,
        "records": lines.iter().map(line).collect::<Vec<_>>(),
    })
}
