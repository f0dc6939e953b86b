//! Budgets from a terminal: which are in use and how full, and giving one more room.

use std::io::{self, Write};

use http::Method;
use serde_json::{Value, json};

use crate::call::{CallId, encode_part};

use super::Exit;
use super::client::Client;
use super::hold_text::of;
use super::holds::{Common, Console, ok, printed};

/// What to do about them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Budgets {
    /// Those in use, the fullest first.
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Give one more room, until its window is over.
    Topup {
        /// Its id, as `ls` shows it.
        id: String,
        /// Whole units: calls, or minor units of the currency.
        #[arg(long)]
        amount: i64,
        /// Why; kept in the record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Names this attempt: repeated with the same key it adds nothing. A fresh one by default.
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn run(said: Budgets, out: &mut impl Write) -> anyhow::Result<Exit> {
    let (mut input, mut err) = (io::BufReader::new(io::stdin()), io::stderr());
    let mut console = Console::new(&mut input, &mut err);
    let (common, answer) = match said {
        Budgets::Ls { common } => {
            let answer = Client::new(&common.at)?.send(Method::GET, "/v1/budgets", None).await?;
            (common, answer)
        }
        Budgets::Topup { id, amount, reason, key, common } => {
            let path = format!("/v1/budgets/{}/topup", encode_part(&id));
            let key = key.unwrap_or_else(|| CallId::new().to_string());
            let body = json!({"amount": amount, "reason": reason});
            let answer = Client::new(&common.at)?.attempt(&path, &body, &key).await?;
            (common, answer)
        }
    };
    match ok(answer, &common, &mut console, out)? {
        Ok(said) if common.json => printed(&said, out),
        Ok(said) => {
            let one = std::slice::from_ref(&said);
            let all = said.pointer("/items").and_then(Value::as_array).map_or(one, Vec::as_slice);
            if all.is_empty() {
                writeln!(out, "no budget is in use")?;
            }
            all.iter().try_for_each(|budget| line(budget, out))?;
            Ok(Exit::Ok)
        }
        Err(exit) => Ok(exit),
    }
}

fn line(budget: &Value, out: &mut impl Write) -> io::Result<()> {
    let number = |name: &str| budget.get(name).and_then(Value::as_i64).unwrap_or_default();
    let extra = match number("extra") {
        0 => String::new(),
        extra => format!(" + {extra} added"),
    };
    let ends = of(budget, "/ends");
    let until = if ends.is_empty() { String::new() } else { format!(", until {ends}") };
    writeln!(
        out,
        "{}  {} {}  {} %: {} used, {} set aside of {}{extra} {}{until}",
        of(budget, "/id"),
        of(budget, "/scope"),
        of(budget, "/owner"),
        number("used_pct"),
        number("used"),
        number("reserved"),
        number("limit"),
        of(budget, "/unit"),
    )
}
