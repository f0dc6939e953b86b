//! `holdpoint drain`: stops a proxy in order, over the admin API.

use std::io::{self, Write};

use http::Method;
use serde_json::{Value, json};

use super::Exit;
use super::client::Client;
use super::holds::{Common, Console, ok, printed};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Why; kept in the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(Args { reason, common }: Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let (mut input, mut err) = (io::BufReader::new(io::stdin()), io::stderr());
    let mut console = Console::new(&mut input, &mut err);
    let client = Client::new(&common.at)?;
    let answer = client.send(Method::POST, "/v1/drain", Some(&json!({"reason": reason}))).await?;
    match ok(answer, &common, &mut console, out)? {
        Ok(done) if common.json => printed(&done, out),
        Ok(done) => {
            let seconds = done.pointer("/drain_s").and_then(Value::as_u64).unwrap_or_default();
            writeln!(
                out,
                "draining: it takes no new calls, those under way have {seconds} s, and it ends some seconds later at most; holds are kept"
            )?;
            Ok(Exit::Ok)
        }
        Err(exit) => Ok(exit),
    }
}
