//! Rules of the house that code must keep: who may import whom, files that are generated, what the README promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Who may import whom. A room that is not listed may import nothing of the crate.
const EDGES: &[(&str, &[&str])] = &[
    ("call", &[]),
    ("clock", &["call"]),
    ("tasks", &["call"]),
    ("telemetry", &["call"]),
    ("config", &["call"]),
    ("policy", &["call"]),
    ("journal", &["call", "clock", "telemetry"]),
    ("store", &["call", "clock", "telemetry", "journal"]),
    ("audit", &["call", "clock", "telemetry", "journal", "store"]),
    ("signals", &["call", "store", "clock", "telemetry"]),
    ("gates", &["call", "config", "policy", "store", "signals", "clock", "telemetry", "tasks"]),
    ("snapshot", &["call", "clock", "config", "policy", "gates"]),
    ("workbench", &["audit", "call", "clock", "config", "gates", "journal", "policy", "snapshot", "store"]),
    ("wire", &["call", "clock", "telemetry", "tasks"]),
    ("pipeline", &["call", "clock", "config", "gates", "signals", "snapshot", "store", "tasks", "telemetry"]),
    ("inquiry", &["call", "gates", "pipeline", "store", "wire"]),
    (
        "admin",
        &[
            "call",
            "clock",
            "config",
            "gates",
            "notify",
            "policy",
            "signals",
            "snapshot",
            "store",
            "tasks",
            "telemetry",
            "wire",
            "workbench",
        ],
    ),
    ("notify", &["call", "clock", "config", "gates", "snapshot", "store", "tasks", "telemetry"]),
    ("init", &["config", "gates"]),
    ("demo", &["app", "call", "cli", "clock", "config", "tasks", "telemetry"]),
    (
        "cli",
        &[
            "admin",
            "app",
            "audit",
            "call",
            "clock",
            "config",
            "demo",
            "gates",
            "init",
            "policy",
            "snapshot",
            "tasks",
            "telemetry",
            "wire",
            "workbench",
        ],
    ),
];

/// Crates that only one room may name.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("sled::", &["store/embedded"]),
    ("axum::", &["admin"]),
    ("cedar_policy::", &["policy", "gates/authz"]),
    ("governor::", &["gates/rate.rs"]),
    ("hyper::", &["wire", "gates/upstream", "admin", "demo", "cli"]),
    ("jsonschema::", &["gates/schema", "config"]),
    ("lettre::", &["notify/mail.rs", "config"]),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(sources(&entry));
        } else if entry.extension().is_some_and(|e| e == "rs") {
            all.push(entry);
        }
    }
    all
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn shipped() -> Vec<(String, String)> {
    let src = Path::new(ROOT).join("src");
    let name = |p: &Path| p.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
    let is_test = |n: &str| n.contains("tests") || n.ends_with("fixtures.rs") || n.ends_with("sample.rs");
    sources(&src).iter().map(|p| (name(p), code(p))).filter(|(n, _)| !is_test(n)).collect()
}

#[test]
fn rooms_import_only_what_they_may() {
    let edges: BTreeMap<_, BTreeSet<_>> = EDGES.iter().map(|(r, all)| (*r, all.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (file, code) in shipped() {
        let room = file.split(['/', '.']).next().unwrap();
        if ["lib", "main", "app"].contains(&room) {
            continue;
        }
        for part in code.split("crate::").skip(1) {
            let other: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let known = EDGES.iter().any(|(r, _)| *r == other) || other == "app";
            if known && other != room && !edges.get(room).is_some_and(|all| all.contains(other.as_str())) {
                wrong.push(format!("{file} imports {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (file, code) in shipped() {
        for (name, rooms) in KEPT_IN {
            let named = code.contains(&format!("use {name}"))
                || code.contains(&format!(" {name}"))
                || code.contains(&format!("<{name}"));
            if named && !rooms.iter().any(|r| file.starts_with(r)) {
                wrong.push(format!("{file} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_and_functions_stay_small() {
    for (file, code) in shipped() {
        let lines = code.lines().filter(|l| !l.trim().is_empty()).count();
        assert!(lines <= 500, "{file} has {lines} lines of code");
    }
}

#[test]
fn the_schema_of_the_configuration_is_up_to_date() {
    let path = Path::new(ROOT).join("schemas/config.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&holdpoint::config::json_schema()).unwrap());
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "run: holdpoint schema config > schemas/config.schema.json");
}

#[test]
fn the_schema_of_test_files_is_up_to_date() {
    let kept = std::fs::read_to_string(Path::new(ROOT).join("schemas/test.schema.json")).unwrap_or_default();
    let text = format!("{}\n", serde_json::to_string_pretty(&holdpoint::workbench::suite::json_schema()).unwrap());
    assert!(kept == text, "run: holdpoint schema test > schemas/test.schema.json");
}

#[test]
fn the_description_of_the_admin_api_is_up_to_date() {
    let kept = std::fs::read_to_string(Path::new(ROOT).join("schemas/openapi.json")).unwrap_or_default();
    let text = format!("{}\n", serde_json::to_string_pretty(&holdpoint::admin::openapi()).unwrap());
    assert!(kept == text, "run: holdpoint schema openapi > schemas/openapi.json");
}

#[test]
fn the_shipped_configuration_passes_check() {
    let dir = tempfile::tempdir().unwrap();
    for part in ["deploy", "policies", "schemas"] {
        copy(&Path::new(ROOT).join(part), &dir.path().join(part));
    }
    for name in ["support-bot", "report-bot", "maya", "li", "sam", "omar", "crm"] {
        let secrets = dir.path().join("deploy/demo/secrets");
        std::fs::create_dir_all(&secrets).unwrap();
        std::fs::write(secrets.join(name), format!("{name}-0123456789abcdef")).unwrap();
    }
    let config = dir.path().join("deploy/demo/holdpoint.yaml");
    let checked =
        Command::new(env!("CARGO_BIN_EXE_holdpoint")).args(["check", "--config"]).arg(config).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name();
        if name == "secrets" || name == "state" {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

#[test]
fn every_trick_of_the_demo_is_stopped() {
    let demo = Command::new(env!("CARGO_BIN_EXE_holdpoint")).args(["demo", "--attack"]).output().unwrap();
    let told = String::from_utf8_lossy(&demo.stdout).into_owned();
    assert!(demo.status.success() && !told.contains("NOT STOPPED"), "{told}");
    assert!(told.contains("11 tricks, 11 stopped"), "{told}");
}

/// Each row of the README's table, and the line of the demo that shows it.
const ROWS: &[(&str, &str, &str)] = &[
    ("`GET /customers/c_204`", "get customer c_204", "✓ through"),
    ("refund **12.00**", "refund 12.00 EUR", "✓ through"),
    ("refund **88.00**", "refund 88.00 EUR", "⏸ held"),
    ("refund **880.00**", "refund 880.00 EUR", "⏸ held"),
    ("change a credit limit", "change credit limit", "✗ refused"),
    ("the same refund again", "the same refund again", "✓ the stored answer"),
];

#[test]
fn the_demo_shows_what_the_readme_promises() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let table: Vec<&str> = readme
        .lines()
        .skip_while(|l| !l.starts_with("| the agent asks for"))
        .skip(2)
        .take_while(|l| l.starts_with('|'))
        .collect();
    assert_eq!(table.len(), ROWS.len(), "a row of the README that no line of the demo shows");
    let demo = Command::new(env!("CARGO_BIN_EXE_holdpoint")).args(["demo", "--script"]).output().unwrap();
    let told = String::from_utf8_lossy(&demo.stdout).into_owned();
    assert!(demo.status.success(), "{told}{}", String::from_utf8_lossy(&demo.stderr));
    for (row, (asked, line, gets)) in table.iter().zip(ROWS) {
        assert!(row.contains(asked), "{row}");
        let word = gets.split_once(' ').unwrap().1;
        assert!(row.contains(word.trim_start_matches("the ")), "{row} does not say `{word}`");
        let shown = told.lines().find(|l| l.contains(line)).unwrap_or_else(|| panic!("no line `{line}` in\n{told}"));
        assert!(shown.contains(gets), "{shown}");
    }
    assert_eq!(
        told.matches("approves").count(),
        5,
        "one person for 88.00, two for 880.00, two for the hard delete\n{told}"
    );
    assert!(told.contains("books         the CRM made exactly the 3 refunds"), "{told}");
}
