//! What a server says, told apart: a response, a sign of progress, a question of its own, or something else.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The response to the request with this id of ours.
    Response(u64),
    /// Progress of the request with this id of ours: our ids are the tokens.
    Progress(u64),
    /// A request of its own, and what it is answered.
    Asked(String),
    /// A notification that is for nobody.
    Told(String),
    /// Not a message.
    Noise(&'static str),
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress<'a> {
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
}

/// What a line is.
pub(super) fn heard(line: &str) -> Heard {
    let Ok(message) = serde_json::from_str::<Message<'_>>(line) else {
        return Heard::Noise("it is no JSON-RPC message");
    };
    match (&message.method, message.id) {
        (Some(method), Some(id)) => Heard::Asked(answer(method, id)),
        (Some(method), None) if method == "notifications/progress" => progress(&message),
        (Some(method), None) => Heard::Told(method.clone().into_owned()),
        (None, id) if message.result.is_some() || message.error.is_some() => {
            let id = id.and_then(|id| id.get().parse().ok());
            id.map_or(Heard::Noise("it answers no request of ours"), Heard::Response)
        }
        (None, _) => Heard::Noise("it is no JSON-RPC message"),
    }
}

fn progress(message: &Message<'_>) -> Heard {
    let of = message.params.and_then(|p| serde_json::from_str::<Progress<'_>>(p.get()).ok());
    let token = of.and_then(|p| p.progress_token?.get().parse().ok());
    token.map_or(Heard::Noise("its token is none of ours"), Heard::Progress)
}

/// No capability of a client was declared: only `ping` is answered.
fn answer(method: &str, id: &RawValue) -> String {
    let says = if method == "ping" {
        "\"result\":{}"
    } else {
        "\"error\":{\"code\":-32601,\"message\":\"this client does not do that\"}"
    };
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{says}}}\n", one_line(id.get()))
}

/// JSON without line ends: between its tokens they mean nothing, and within a string they cannot stand.
pub(super) fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let cases = [
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, Heard::Response(7)),
            (r#"{"jsonrpc":"2.0","id":8,"error":{"code":1,"message":"x"}}"#, Heard::Response(8)),
            (r#"{"method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#, Heard::Progress(7)),
            (r#"{"method":"notifications/message","params":{}}"#, Heard::Told("notifications/message".into())),
        ];
        for (line, said) in cases {
            assert_eq!(heard(line), said, "{line}");
        }
        let noise = [
            "hello",
            "[]",
            "{}",
            r#"{"id":"7","result":{}}"#,
            r#"{"id":null,"result":{}}"#,
            r#"{"id":-7,"result":{}}"#,
            r#"{"id":7,"id":8,"result":{}}"#,
            r#"{"id":7}"#,
            r#"{"method":"notifications/progress","params":{"progressToken":"7"}}"#,
        ];
        for line in noise {
            assert!(matches!(heard(line), Heard::Noise(_)), "{line}");
        }
    }

    #[test]
    fn the_servers_own_requests_are_answered_here() {
        let Heard::Asked(pong) = heard(r#"{"jsonrpc":"2.0","id":"a\"b","method":"ping"}"#) else { panic!() };
        assert_eq!(pong, "{\"jsonrpc\":\"2.0\",\"id\":\"a\\\"b\",\"result\":{}}\n");
        let Heard::Asked(no) = heard(r#"{"id":1,"method":"sampling/createMessage","params":{}}"#) else { panic!() };
        assert!(no.contains("-32601") && no.ends_with('\n'));
    }
}
