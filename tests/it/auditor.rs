//! What operators and auditors do with the state folder: look at it, export it, prove it, and put an old one back.

use std::path::Path;

use crate::binary::Site;
use crate::harness::{Setup, answer};

use serde_json::json;

async fn site() -> Site {
    let site = Site::new(Setup::new()).await;
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    site
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs and stops once, with so many refunds.
async fn refunds(site: &Site, name: &str, count: usize) {
    let running = site.start().await;
    for n in 0..count {
        assert_eq!(running.refund(&format!("o_{name}{n}"), 100, &[]).await.status, 201);
    }
    assert_eq!(running.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_exported_proved_and_checked_with_a_kept_key() {
    let site = site().await;
    refunds(&site, "a", 3).await;
    let (state, dir) = (site.state(), site.dir.path());
    let (code, key) = Site::run(&["audit", "key", text(&state)]);
    let key = key.trim();
    assert_eq!(code, Some(0), "{key}");
    assert_eq!(object(&["audit", "key", text(&state), "--json"])["key"], key);
    let kept = dir.join("kept.checkpoint");
    std::fs::copy(state.join("checkpoint"), &kept).unwrap();
    refunds(&site, "b", 3).await;
    let export = dir.join("log.jsonl");
    let (code, said) = Site::run(&["audit", "export", text(&state), "-o", text(&export)]);
    assert_eq!(code, Some(0), "{said}");
    for place in [&state, &export] {
        let args = ["audit", "verify", text(place), "--key", key, "--checkpoint", text(&kept)];
        let (code, said) = Site::run(&args);
        assert_eq!((code, said.matches("signed:").count()), (Some(0), 2), "{said}");
    }
    let lines: Vec<String> = std::fs::read_to_string(&export).unwrap().lines().map(str::to_owned).collect();
    std::fs::write(&export, lines[..lines.len() - 2].join("\n")).unwrap();
    let (code, said) = Site::run(&["audit", "verify", text(&export), "--key", key]);
    assert!(code == Some(2) && said.contains("tail is missing"), "{said}");
    for (what, value, shown) in
        [("--record", "7", "record 7 is in the signed log"), ("--since", text(&kept), "begins with the signed log")]
    {
        let (code, proof) = Site::run(&["audit", "prove", text(&state), what, value]);
        assert_eq!(code, Some(0), "{proof}");
        let file = dir.join("proof.json");
        std::fs::write(&file, &proof).unwrap();
        let (code, said) = Site::run(&["audit", "check-proof", text(&file), "--key", key]);
        assert!(code == Some(0) && said.contains(shown), "{said}");
        let told = object(&["audit", "check-proof", text(&file), "--key", key, "--json"]);
        assert!(told["ok"] == true && told["key_pinned"] == true, "{told}");
        std::fs::write(&file, proof.replacen("sha256:", "sha256:00", 1)).unwrap();
        assert_eq!(Site::run(&["audit", "check-proof", text(&file), "--key", key]).0, Some(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_older_journal_reads_pass_and_effects_wait_for_a_person() {
    let site = site().await;
    refunds(&site, "a", 2).await;
    let (state, saved) = (site.state(), site.dir.path().join("backup"));
    copy(&state, &saved);
    refunds(&site, "b", 2).await;
    for part in ["journal", "index"] {
        std::fs::remove_dir_all(state.join(part)).unwrap();
        copy(&saved.join(part), &state.join(part));
    }
    let sent = site.upstream.count();
    let running = site.start().await;
    assert!(running.logged().contains("rollback detected"));
    let refused = running.refund("o_b0", 100, &[]).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
    assert_eq!(refused.json()["executed"], "no");
    assert_eq!(site.upstream.count(), sent, "what was perhaps sent before is not sent again");
    assert!(running.get("/crm/customers/c_1").await.status < 300, "reads pass");
    assert_eq!(running.stop().await, Some(0));
    let config = site.dir.path().join("holdpoint.yaml");
    let (code, said) = Site::run(&["doctor", "--config", text(&config)]);
    assert!(code == Some(2) && said.contains("tail is missing"), "{said}");
    let (code, said) = Site::run(&["audit", "accept", "--config", text(&config), "--reason", "restored a backup"]);
    assert!(code == Some(0) && said.contains("rollback detected"), "{said}");
    let running = site.start().await;
    assert_eq!(running.refund("o_c0", 100, &[]).await.status, 201);
    assert_eq!(running.stop().await, Some(0));
    let (_, said) = Site::run(&["doctor", "--config", text(&config)]);
    assert!(said.contains("the journal verifies"), "{said}");
    let told = object(&["doctor", "--config", text(&config), "--json"]);
    let findings = told["findings"].as_array().unwrap();
    assert_eq!(findings.len(), said.lines().count(), "{told}");
    assert!(findings.iter().any(|f| f["level"] == "ok" && f["text"].as_str().unwrap().contains("verifies")), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_was_taken_away_is_missed() {
    let site = site().await;
    refunds(&site, "a", 1).await;
    let state = site.state();
    assert_eq!(Site::verify(&state).0, Some(0));
    std::fs::remove_file(state.join("checkpoint")).unwrap();
    let (code, said) = Site::verify(&state);
    assert!(code == Some(2) && said.contains("checkpoint is gone"), "{said}");
    let running = site.start().await;
    assert_eq!(running.refund("o_b0", 100, &[]).await.status, 503);
    assert_eq!(running.stop().await, Some(0));
}

/// What a verb says with `--json`: one object with its version.
fn object(args: &[&str]) -> serde_json::Value {
    let said = Site::run(args).1;
    let object: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(object["version"], 1, "{said}");
    object
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).map(drop).unwrap();
        }
    }
}
