//! `holdpoint holds watch`: what happens to held calls, line by line, as it happens.

use std::io::Write;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::call::sse::Splitter;
use crate::call::{encode_part, visible};

use super::Exit;
use super::client::{Client, Followed};
use super::holds::{Common, Console, ok};

/// Longest event of the stream.
const LIMIT: usize = 1 << 20;
/// After a stream that ended, or could not begin, it is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Follow held calls as they are asked for, decided, and end.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Only these events, such as `hold.created,hold.expired`; `*` at the end stands for any end.
    #[arg(long, default_value = "hold.*")]
    types: String,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// One event as it came.
struct Heard {
    id: String,
    name: String,
    data: Value,
}

impl Watch {
    pub(super) async fn run(&self, console: &mut Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
        let client = Client::new(&self.common.at)?;
        let path = format!("/v1/events?types={}", encode_part(&self.types));
        let (mut last, mut left) = (None, self.count.unwrap_or(u64::MAX));
        while left > 0 {
            let mut stream = match client.follow(&path, last.as_deref()).await {
                Ok(Followed::Stream(stream)) => stream,
                Ok(Followed::Refused(answer)) => {
                    return Ok(ok(answer, &self.common, console, out)?.err().unwrap_or(Exit::Usage));
                }
                Err(error) => {
                    writeln!(console.err, "{error:#}; trying again")?;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let mut splitter = Splitter::new(LIMIT);
            while let Some(bytes) = stream.next().await {
                for heard in splitter.push(&bytes)?.iter().filter_map(heard) {
                    last = Some(heard.id.clone());
                    self.tell(&client, &heard, out).await?;
                    left -= 1;
                    if left == 0 {
                        return Ok(Exit::Ok);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Exit::Ok)
    }

    async fn tell(&self, client: &Client, heard: &Heard, out: &mut impl Write) -> anyhow::Result<()> {
        if self.common.json {
            let line = serde_json::json!({"id": heard.id, "event": heard.name, "data": heard.data});
            writeln!(out, "{line}")?;
        } else if heard.name == "reset" {
            writeln!(out, "something may have been missed: look with `holdpoint holds ls`")?;
        } else {
            let text = |name: &str| heard.data.get(name).and_then(Value::as_str).unwrap_or_default();
            let hold = client.send(Method::GET, &format!("/v1/holds/{}", encode_part(text("id"))), None).await?;
            let shown = |at: &str| hold.json.pointer(at).and_then(Value::as_str).map(visible).unwrap_or_default();
            let what = heard.name.trim_start_matches("hold.");
            writeln!(
                out,
                "{}  {what:<12} {:<6} {}  {}  {}",
                shown("/times/updated").chars().skip(11).take(8).collect::<String>(),
                text("tier"),
                shown("/code"),
                shown("/title"),
                shown("/who/agent")
            )?;
        }
        Ok(out.flush()?)
    }
}

/// Comments that keep the stream alive are no events.
fn heard(event: &crate::call::sse::Event) -> Option<Heard> {
    let data = serde_json::from_str(event.data.as_deref()?).ok()?;
    let raw = String::from_utf8_lossy(&event.raw).into_owned();
    let name = raw.lines().find_map(|l| l.strip_prefix("event:")).map(|n| n.trim().to_owned());
    Some(Heard { id: event.id.clone()?, name: name?, data })
}
