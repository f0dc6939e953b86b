//! Recorded calls asked again under other policies, by the real binary: how long that takes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use holdpoint::call::{Facts, Timestamp};
use holdpoint::store::CallRecord;
use serde_json::json;

use crate::store;

/// One refund of the demo's agent, with its own amount.
fn refund(record: &mut CallRecord, n: u64) {
    let amount = 100 * (n % 900);
    record.operation = "crm.refund".to_owned();
    record.tool = "crm".to_owned();
    let principal = json!({"agent": "support-bot", "groups": ["support"], "org": "demo", "owner": "support-leads",
        "method": "api_key", "subject": "key|support-bot"});
    record.principal = Arc::new(serde_json::from_value(principal).unwrap());
    record.context =
        Arc::new(serde_json::from_value(json!({"workflow": "refunds", "stage": "execute", "run": "r"})).unwrap());
    let arguments =
        json!({"customerId": "c_204", "orderId": format!("o_{n}"), "amountMinor": amount, "currency": "EUR"});
    record.arguments = Arc::new(arguments);
    let facts = json!({"now": record.created, "source_ip": "127.0.0.1", "budget": {"org": {"used_pct": n % 100}}});
    let facts: Facts = serde_json::from_value(facts).unwrap();
    assert!(facts.now > Timestamp::from_millis(0));
    record.facts = Some(Arc::new(facts));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub(crate) fn run(count: u64) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("replay");
    drop(std::fs::remove_dir_all(&home));
    for folder in ["policies", "schemas", "deploy/demo"] {
        copy(&root.join(folder), &home.join(folder));
    }
    copy(&root.join("policies"), &home.join("next"));
    let secrets = home.join("deploy/demo/secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    for name in ["support-bot", "report-bot", "maya", "li", "sam", "omar", "crm"] {
        std::fs::write(secrets.join(name), format!("{name}-0123456789-0123456789")).unwrap();
    }
    let agents = home.join("next/agents.cedar");
    let text = std::fs::read_to_string(&agents).unwrap();
    std::fs::write(&agents, text.replace("amountMinor > 5000 ", "amountMinor > 9000 ")).unwrap();
    store::fill(&home.join("deploy/demo/state"), count, 30, refund);
    let began = Instant::now();
    let out = Command::new(env!("CARGO_BIN_EXE_holdpoint"))
        .current_dir(&home)
        .args(["replay", "--config", "deploy/demo/holdpoint.yaml", "--policies", "next", "--show", "3"])
        .output()
        .unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", String::from_utf8_lossy(&out.stdout));
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
    println!("{count} calls: {seconds:.1} s with start and reading, {:.0} a minute", count as f64 * 60.0 / seconds);
}
