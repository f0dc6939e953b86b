//! What Slack sends when somebody presses a button: who, on which message, and whether it is Slack that says so.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde::Deserialize;

use crate::call::{Digest, HoldId, Timestamp};
use crate::config::Secret;

/// A callback is believed for so long, in both directions: clocks differ.
const WINDOW: Duration = Duration::from_secs(300);

/// Whether one of these secrets signed the exact body at a time that is near `now`: `v0=` and HMAC-SHA256 over
/// `v0:<timestamp>:<body>`. Signatures are compared in constant time.
#[must_use]
pub fn is_signed(keys: &[Secret], timestamp: &str, signature: &str, body: &[u8], now: Timestamp) -> bool {
    let Ok(seconds) = timestamp.parse::<u32>() else { return false };
    let at = Timestamp::from_millis(i64::from(seconds) * 1000);
    if now.since(at).max(at.since(now)) > WINDOW {
        return false;
    }
    let signature = signature.strip_prefix("v0=").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
    let Some(signature) = signature else { return false };
    let mut signed = format!("v0:{timestamp}:").into_bytes();
    signed.extend_from_slice(body);
    let by = |key: &Secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes());
        hmac::verify(&key, &signed, signature.as_bytes()).is_ok()
    };
    keys.iter().any(by)
}

/// What a button says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Yes.
    Approve,
    /// No, and why: a reason code.
    Reject(String),
}

/// Somebody pressed a button of a hold's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click {
    /// The workspace of the person.
    pub team: String,
    /// The person there.
    pub member: String,
    /// Id of the channel that the message stands in.
    pub channel: String,
    /// Name of the message there.
    pub ts: String,
    /// Where an answer to this one person goes.
    pub answer: Option<String>,
    /// The hold, as the message showed it.
    pub hold: HoldId,
    /// Its version then.
    pub version: u64,
    /// What was shown then.
    pub digest: Digest,
    /// The decision.
    pub said: Said,
}

/// What a message's buttons are about; stands in the message, and comes back with a click.
pub(super) fn about(hold: &str, version: u64, digest: &Digest) -> String {
    format!("{hold}|{version}|{digest}")
}

#[derive(Debug, Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    user: User,
    #[serde(default)]
    team: Option<Named>,
    #[serde(default)]
    container: Container,
    #[serde(default)]
    response_url: Option<String>,
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Debug, Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    team_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    channel_id: String,
    message_ts: String,
}

#[derive(Debug, Deserialize)]
struct Action {
    action_id: String,
    #[serde(default)]
    block_id: String,
    #[serde(default)]
    selected_option: Option<Chosen>,
}

#[derive(Debug, Deserialize)]
struct Chosen {
    value: String,
}

impl Click {
    /// Reads the `payload` of a callback. Nothing when no button of ours was pressed that decides: a link was followed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(payload: &str) -> Result<Option<Self>, String> {
        let payload: Payload =
            serde_json::from_str(payload).map_err(|e| format!("`payload` is not a callback: {e}"))?;
        let Some(action) = payload.actions.into_iter().next().filter(|_| payload.kind == "block_actions") else {
            return Ok(None);
        };
        let said = match (action.action_id.as_str(), action.selected_option) {
            ("approve", _) => Said::Approve,
            ("reject", Some(chosen)) => Said::Reject(chosen.value),
            _ => return Ok(None),
        };
        let about = read_about(&action.block_id).ok_or("`block_id` is none of ours")?;
        Ok(Some(Self {
            team: payload.user.team_id.or(payload.team.map(|t| t.id)).unwrap_or_default(),
            member: payload.user.id,
            channel: payload.container.channel_id,
            ts: payload.container.message_ts,
            answer: payload.response_url,
            hold: about.0,
            version: about.1,
            digest: about.2,
            said,
        }))
    }
}

fn read_about(text: &str) -> Option<(HoldId, u64, Digest)> {
    let mut parts = text.splitn(3, '|');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_signature_is_that_of_slacks_own_example() {
        let key = [Secret::new("8f742231b10e8888abcd99yyyzzz85a5")];
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                    channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                    response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F\
                    96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let good = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
        let (at, now) = ("1531420618", 1_531_420_618_000);
        let holds = |at: &str, signature: &str, body: &str, now| {
            is_signed(&key, at, signature, body.as_bytes(), Timestamp::from_millis(now))
        };
        assert!(holds(at, good, body, now));
        assert!(holds(at, good, body, now + 300_000) && holds(at, good, body, now - 300_000));
        assert!(!holds(at, good, body, now + 301_000) && !holds(at, good, body, now - 301_000));
        assert!(!holds("1531420619", good, body, now));
        assert!(!holds(at, &good.replace("b503", "b504"), body, now));
        assert!(!holds(at, &good.replace("v0=", "v1="), body, now) && !holds(at, "v0=", body, now));
        assert!(!holds(at, good, &body.replace("roadrunner", "coyote"), now));
        assert!(!holds("", good, body, now) && !holds("-5", good, body, now) && !holds("0x5b47", good, body, now));
        let two = [Secret::new("another-signing-secret"), key[0].clone()];
        assert!(is_signed(&two, at, good, body.as_bytes(), Timestamp::from_millis(now)));
        assert!(!is_signed(&two[..1], at, good, body.as_bytes(), Timestamp::from_millis(now)));
        assert!(!is_signed(&[], at, good, body.as_bytes(), Timestamp::from_millis(now)));
    }

    #[test]
    fn a_click_says_who_on_what() {
        let (hold, digest) = (HoldId::new(), Digest::of(b"call"));
        let click = |action: serde_json::Value| {
            let payload = json!({
                "type": "block_actions", "user": {"id": "U2", "team_id": "T2", "name": "maya"}, "team": {"id": "T1"},
                "container": {"type": "message", "channel_id": "C3", "message_ts": "4.5"},
                "response_url": "https://hooks.slack.com/a", "actions": [action], "new_in_slack": {},
            });
            Click::read(&payload.to_string())
        };
        let block = about(&hold.to_string(), 3, &digest);
        assert!(block.len() <= 255, "Slack takes no longer block_id");
        let said = click(json!({"action_id": "approve", "block_id": block, "type": "button", "value": "x"}));
        let said = said.unwrap().unwrap();
        assert_eq!((said.team.as_str(), said.member.as_str(), said.said), ("T2", "U2", Said::Approve));
        assert_eq!((said.hold, said.version, said.digest), (hold, 3, digest));
        assert_eq!((said.channel.as_str(), said.ts.as_str()), ("C3", "4.5"));
        let reason = json!({"action_id": "reject", "block_id": block, "selected_option": {"value": "duplicate"}});
        assert_eq!(click(reason).unwrap().unwrap().said, Said::Reject("duplicate".into()));
        assert_eq!(click(json!({"action_id": "open", "block_id": block})), Ok(None), "a link was followed");
        assert!(click(json!({"action_id": "approve", "block_id": "x"})).is_err());
        assert!(Click::read("{}").is_err());
    }
}
