//! What `?include=` adds to a hold or call: `raw`, its request for a shell; `trace`, how it got here; `similar`, calls like it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::call::{short_code, visible};
use crate::store::CallRecord;

use super::alike::Like;
use super::api::{Asked, parameters};
use super::ask::Asker;
use super::exact::{Body, Exact};
use super::group::{self, Member};
use super::problem::Problem;
use super::{run, weigh};

/// What may be asked for.
pub(super) const WORDS: [&str; 3] = ["raw", "trace", "similar"];

/// What a reader wants beside the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Include {
    raw: bool,
    trace: bool,
    similar: bool,
}

impl Include {
    /// Of a query: words with commas between them.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Problem> {
        let mut include = Self::default();
        for (_, value) in parameters(query, &["include"])? {
            for word in value.split(',') {
                match word {
                    "raw" => include.raw = true,
                    "trace" => include.trace = true,
                    "similar" => include.similar = true,
                    other => return Err(unknown(other)),
                }
            }
        }
        Ok(include)
    }

    /// The members that were asked for.
    pub(super) async fn members(
        self,
        asked: &Asked,
        record: &CallRecord,
        exact: &Exact,
        like: &Like,
    ) -> Result<Map<String, Value>, Problem> {
        let mut members = Map::new();
        if self.raw {
            members.insert("raw".to_owned(), raw(exact));
        }
        if self.trace {
            members.insert("trace".to_owned(), trace(asked, record).await?);
        }
        if self.similar {
            members.insert("similar".to_owned(), similar(asked, record, like).await?);
        }
        Ok(members)
    }
}

fn unknown(word: &str) -> Problem {
    let text = format!("`include` does not know `{}`: it lists some of {}", word.escape_debug(), WORDS.join(", "));
    Problem::invalid(text)
}

fn raw(exact: &Exact) -> Value {
    let mut raw = exact.json();
    if let Some(members) = raw.as_object_mut() {
        members.insert("curl".to_owned(), curl(exact).into());
    }
    raw
}

/// The request for a shell, without the credential that the proxy adds; nothing where the body is not shown. Whatever is
/// not plain text goes in as base64: neither a shell nor a terminal changes it, or obeys it.
fn curl(exact: &Exact) -> Option<String> {
    let Body::Bytes(body) = &exact.body else { return None };
    let quoted = |text: &str| shlex::try_quote(text).ok().map(std::borrow::Cow::into_owned);
    let mut line = format!("curl --request {}", quoted(&exact.method)?);
    let kind = exact.content_type.iter().map(|kind| format!("content-type: {kind}"));
    for header in kind.chain(exact.headers.iter().map(|(name, value)| format!("{name}: {value}"))) {
        line.push_str(&format!(" --header {}", quoted(&header)?));
    }
    let plain = std::str::from_utf8(body).ok().filter(|text| visible(text) == *text && !text.starts_with('@'));
    let mut before = String::new();
    match plain {
        Some("") => {}
        Some(text) => line.push_str(&format!(" --data-binary {}", quoted(text)?)),
        None => {
            before = format!("printf %s {} | base64 -d | ", STANDARD.encode(body));
            line.push_str(" --data-binary @-");
        }
    }
    // A mask in a URL is no pattern of curl's.
    Some(format!("{before}{line} --globoff {}", quoted(&exact.url)?))
}

/// The id of a trace, as W3C Trace Context writes it.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|b| b != b'0')).then_some(id)
}

async fn trace(asked: &Asked, record: &CallRecord) -> Result<Value, Problem> {
    let asker = asked.asker();
    let header = |name: &str| record.request.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    let traceparent = header("traceparent");
    let before = weigh::came_before(&asked.admin, &asker, record).await?;
    Ok(json!({
        "trace_id": traceparent.and_then(|t| trace_id(t)),
        "traceparent": traceparent,
        "tracestate": header("tracestate"),
        "run": record.context.run,
        "step": record.context.step,
        "path": before.iter().map(|r| run::call_node(&asker, r)).collect::<Vec<_>>(),
    }))
}

async fn similar(asked: &Asked, record: &CallRecord, like: &Like) -> Result<Value, Problem> {
    let asker = asked.asker();
    let members = match group::cluster(record) {
        Some(cluster) => group::found(&asked.admin, &asker, &cluster).await?,
        None => Vec::new(),
    };
    let others = members.iter().filter(|m| m.record.id != record.id);
    let held: Vec<Value> = others.map(|m| one(&asker, m)).collect();
    let mut similar = like.json();
    if let Some(members) = similar.as_object_mut() {
        members.insert("held".to_owned(), held.into());
    }
    Ok(similar)
}

fn one(asker: &Asker<'_>, Member { record, odd }: &Member) -> Value {
    let amount = record.money.as_ref().map(|(minor, currency)| json!({"minor": minor, "currency": currency}));
    json!({
        "hold": record.id.hold(), "title": record.title, "state": record.state_at(asker.now), "digest": record.digest,
        "code": short_code(&record.digest), "amount": amount, "created": record.created, "expires": record.expires, "odd": odd,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn exact(body: Body) -> Exact {
        Exact {
            method: "POST".to_owned(),
            url: "https://crm/v2/o[redacted]?a=1&b='".to_owned(),
            content_type: Some("application/json".to_owned()),
            headers: vec![("accept".to_owned(), "*/*".to_owned())],
            bytes: 0,
            sha256: None,
            redacted: Vec::new(),
            secrets: Vec::new(),
            body,
        }
    }

    /// What a shell makes of it.
    fn words(body: &'static [u8]) -> Vec<String> {
        shlex::split(&curl(&exact(Body::Bytes(Bytes::from_static(body)))).unwrap()).unwrap()
    }

    #[test]
    fn a_shell_reads_the_request_as_it_is_sent() {
        let line = words(br#"{"note":"it's $HOME `id`"}"#);
        assert_eq!(line[..3], ["curl", "--request", "POST"]);
        assert_eq!(line[3..7], ["--header", "content-type: application/json", "--header", "accept: */*"]);
        assert_eq!(line[7..9], ["--data-binary", r#"{"note":"it's $HOME `id`"}"#]);
        assert_eq!(line[9..], ["--globoff", "https://crm/v2/o[redacted]?a=1&b='"]);
        assert!(!words(b"").contains(&"--data-binary".to_owned()));
    }

    #[test]
    fn what_is_no_plain_text_goes_in_as_base64_and_what_is_withheld_not_at_all() {
        for odd in [b"\xff\x00".as_slice(), b"a\x1b[2Jb", "pay\u{202e}".as_bytes(), b"@/etc/passwd"] {
            let line = words(odd);
            assert_eq!(line[..2], ["printf", "%s"], "{line:?}");
            assert_eq!(STANDARD.decode(&line[2]).unwrap(), odd);
            assert!(line.windows(2).any(|pair| pair == ["--data-binary", "@-"]), "{line:?}");
        }
        assert_eq!((curl(&exact(Body::Withheld)), curl(&exact(Body::Gone))), (None, None));
    }

    #[test]
    fn a_trace_has_an_id_where_it_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        for wrong in ["", "00", "00-1", &format!("00-{}-1", "0".repeat(32)), &id.to_uppercase()] {
            assert_eq!(trace_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_for_is_known() {
        let all = Include { raw: true, trace: true, similar: true };
        assert_eq!(Include::of(None).unwrap(), Include::default());
        assert_eq!(Include::of(Some("include=raw,trace,similar")).unwrap(), all);
        for wrong in ["include=", "include=raw,", "include=Raw", "include=raw,%20trace"] {
            let problem = Include::of(Some(wrong)).unwrap_err();
            assert_eq!(problem.code(), "invalid_arguments", "{wrong}");
            assert!(problem.detail().contains("raw, trace, similar"), "{}", problem.detail());
        }
    }
}
