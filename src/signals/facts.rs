//! Facts for a decision, gathered once, from the records.

use std::collections::BTreeSet;

use crate::call::{Call, Digest, Facts, Fault, Meters, Principal, Timestamp};
use crate::store::{HistoryQuestion, Store};

/// Gathers the facts of one call. `meters` come from the budget gate, `evidence` from the call or its hold.
///
/// # Errors
/// A fault when the store cannot tell.
pub fn gather(
    store: &Store,
    principal: &Principal,
    call: &Call,
    meters: Meters,
    evidence: BTreeSet<String>,
    now: Timestamp,
) -> Result<Facts, Fault> {
    let operation = call.operation();
    let target = operation.target.as_ref().and_then(|p| call.arguments().pointer(p)).map(Digest::of_json);
    let currency = operation.cost.amount.as_ref().and_then(|(_, at)| call.arguments().pointer(at));
    let fixed = operation.cost.money.as_ref().map(|(_, c)| c.as_str());
    let question = HistoryQuestion {
        principal,
        run: &call.context().run,
        operation: &operation.name,
        target,
        currency: currency.and_then(serde_json::Value::as_str).or(fixed),
    };
    let trust = store.trust(principal, &operation.name)?;
    let history = store.history(&question)?;
    Ok(Facts { now, evidence, source_ip: call.source_ip(), budget: meters, history, trust })
}
