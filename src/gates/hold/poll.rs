//! A held call as rounds of an MCP client that comes back by itself (MRTR without a question, `mcp.md` 2.3.3). What the
//! client carries between rounds is not to be believed: it is authenticated, and bound to agent, call and hold.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::call::mrtr::INVALID_STATE;
use crate::call::{Call, Code, HoldId, Principal, Refusal, Timestamp};

/// How long one round waits.
pub(super) const ROUND: Duration = Duration::from_secs(20);
/// Clients give up after ten rounds.
const ROUNDS: u32 = 9;
/// How long a client may take to come back.
const LIFE: Duration = Duration::from_secs(300);

/// Makes and checks the states of rounds.
#[derive(Clone)]
pub struct Polls(hmac::Key);

impl std::fmt::Debug for Polls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Polls")
    }
}

/// A round that a client is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Of this hold.
    pub hold: HoldId,
    /// From 1.
    pub number: u32,
}

impl Polls {
    /// With this key, which must outlive a restart.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The state for the round after `before`; none when there have been enough.
    #[must_use]
    pub fn next(
        &self,
        principal: &Principal,
        call: &Call,
        hold: HoldId,
        before: Option<Round>,
        now: Timestamp,
    ) -> Option<String> {
        let number = before.map_or(0, |b| b.number) + 1;
        let expires = now.plus(LIFE).as_millis() / 1000;
        (number <= ROUNDS).then(|| {
            let mac = hmac::sign(&self.0, bound(principal, call, hold, number, expires).as_bytes());
            format!("v1.{hold}.{number}.{expires}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
        })
    }

    /// The round that a call is in, if it says so.
    ///
    /// # Errors
    /// -32602 for a state that we did not give to this agent for this call, or that is over.
    pub fn read(&self, principal: &Principal, call: &Call, now: Timestamp) -> Result<Option<Round>, Refusal> {
        let Some(state) = call.poll() else { return Ok(None) };
        let round = self.parsed(state, principal, call, now).ok_or_else(|| {
            let text = "`requestState` is not one that was given out for this call, or its time is over";
            Refusal::new(Code::MalformedRequest, text).with_rpc(INVALID_STATE)
        })?;
        Ok(Some(round))
    }

    fn parsed(&self, state: &str, principal: &Principal, call: &Call, now: Timestamp) -> Option<Round> {
        let mut parts = state.strip_prefix("v1.")?.split('.');
        let (hold, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (expires, mac) = (parts.next()?.parse().ok()?, URL_SAFE_NO_PAD.decode(parts.next()?).ok()?);
        let of = bound(principal, call, hold, number, expires);
        let fresh = parts.next().is_none() && now.as_millis() / 1000 <= expires;
        (fresh && hmac::verify(&self.0, of.as_bytes(), &mac).is_ok()).then_some(Round { hold, number })
    }
}

fn bound(principal: &Principal, call: &Call, hold: HoldId, number: u32, expires: i64) -> String {
    let key = principal.key();
    serde_json::json!(["v1", key.0, key.1, key.2, call.fingerprint(), hold.to_string(), number, expires]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Effects, ToolKind};
    use crate::policy::sample;

    #[test]
    fn a_state_serves_one_agent_for_one_call_and_a_while() {
        let polls = Polls::new(&[7; 32]);
        let operation = sample::operation(&sample::tool("tickets", ToolKind::Mcp), "pay", Effects::default(), None);
        let operation = std::sync::Arc::new(operation);
        let call =
            |amount: i64, poll: Option<&str>| sample::polling(&operation, serde_json::json!({"n": amount}), poll);
        let (mine, other) = (sample::named("a"), sample::named("b"));
        let now = Timestamp::from_millis(1_000_000);
        let one = call(1, None);
        let hold = one.id().hold();
        let state = polls.next(&mine, &one, hold, None, now).unwrap();
        let read = |p: &Principal, amount, state: &str, now| polls.read(p, &call(amount, Some(state)), now);
        assert_eq!(read(&mine, 1, &state, now).unwrap(), Some(Round { hold, number: 1 }));
        assert_eq!(polls.read(&mine, &one, now).unwrap(), None);
        for wrong in [
            read(&other, 1, &state, now),
            read(&mine, 2, &state, now),
            read(&mine, 1, &state, now.plus(LIFE * 2)),
            read(&mine, 1, &state.replacen(".1.", ".9.", 1), now),
            read(&mine, 1, &format!("{state}A"), now),
            read(&mine, 1, "v1.nonsense", now),
        ] {
            assert_eq!(wrong.unwrap_err().rpc_code(), INVALID_STATE);
        }
        let mut round = None;
        let mut seen = std::collections::BTreeSet::new();
        while let Some(state) = polls.next(&mine, &one, hold, round, now) {
            round = read(&mine, 1, &state, now).unwrap();
            assert!(seen.insert(state), "a state that does not change ends the rounds of some clients");
        }
        assert_eq!(seen.len(), 9);
    }
}
