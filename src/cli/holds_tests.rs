//! `holdpoint holds` against a real admin listener.

use std::path::PathBuf;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::admin;
use crate::admin::tests::World;
use crate::call::short_code;
use crate::store::State;
use crate::tasks;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    verb: Holds,
}

#[derive(Debug, Parser)]
struct CallLine {
    #[command(subcommand)]
    verb: calls::Calls,
}

struct Shell {
    world: World,
    url: String,
    stop: watch::Sender<bool>,
}

/// Exit, stdout, stderr.
type Ran = (Result<Exit, String>, String, String);

impl Shell {
    async fn start() -> Self {
        let world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        tasks::spawn(admin::serve(listener, None, world.router.clone(), stopped));
        Self { world, url, stop }
    }

    fn token(&self, user: &str) -> PathBuf {
        self.world.dir.path().join(format!("{user}.token"))
    }

    /// Runs a line as this user; `typed` makes it a terminal.
    async fn run(&self, user: &str, args: &[&str], typed: Option<&str>) -> Ran {
        let token = self.token(user).display().to_string();
        let at = ["--url", self.url.as_str(), "--token-file", token.as_str()];
        let asked = match args.split_first() {
            Some((&"calls", args)) => {
                Asked::Calls(CallLine::try_parse_from(["calls"].iter().chain(args).chain(&at)).unwrap().verb)
            }
            _ => Asked::Holds(Line::try_parse_from(["holds"].iter().chain(args).chain(&at)).unwrap().verb),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut input = typed.unwrap_or_default().as_bytes();
        let console = Console { input: &mut input, err: &mut err, is_terminal: typed.is_some() };
        let exit = run_with(asked, console, &mut out).await.map_err(|e| format!("{e:#}"));
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
}

#[tokio::test]
async fn a_hold_is_listed_shown_and_approved_by_its_digest() {
    let shell = Shell::start().await;
    let hold = shell.world.hold(8800).await;
    let id = hold.id.hold().to_string();
    let (exit, out, _) = shell.run("maya", &["ls"], None).await;
    assert_eq!(exit, Ok(Exit::Ok));
    assert!(out.contains("* Refund 88.00 EUR on order o_881") && out.contains("held 0/1"), "{out}");
    assert!(out.lines().all(|l| l.chars().count() <= 80), "{out}");
    assert!(shell.run("dana", &["ls"], None).await.1.contains("nothing is waiting"));
    for (who, found, want) in [("maya", "o_881", true), ("maya", "o_882", false), ("dana", "o_881", false)] {
        let (_, out, _) = shell.run(who, &["ls", "--mine", "--find", found], None).await;
        assert_eq!(!out.contains("nothing is waiting"), want, "{who} {found}: {out}");
    }
    assert!(shell.run("maya", &["ls", "--overdue"], None).await.1.contains("nothing is waiting"));
    let (_, out, _) = shell.run("maya", &["ls", "--tier", "medium", "--op", "crm.refund", "--json"], None).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["items"][0]["id"], id);

    let code = short_code(&hold.digest);
    let (exit, shown, _) = shell.run("maya", &["show", &code], None).await;
    assert_eq!(exit, Ok(Exit::Ok));
    for part in
        ["88.00 EUR", "refund-review", "/amountMinor = 8800", "\\u{202e}", "still needed", &hold.digest.to_string()]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("c_204_secret") && !shown.contains('\u{202e}'));

    let (exit, _, _) = shell.run("maya", &["approve", &code], None).await;
    let said = exit.unwrap_err();
    assert!(said.contains("--digest") && said.contains("holdpoint holds show"), "{said}");
    let (exit, _, err) = shell.run("maya", &["approve", &code, "--digest", &format!("sha256:{:064}", 0)], None).await;
    assert_eq!(exit, Ok(Exit::Rejected));
    assert!(err.contains("digest_changed") && err.contains(&hold.digest.to_string()), "{err}");
    let (exit, _, err) = shell.run("dana", &["approve", &id, "--digest", &hold.digest.to_string()], None).await;
    assert_eq!((exit, err.contains("not_found")), (Ok(Exit::Rejected), true));
    let (exit, out, err) = shell.run("maya", &["approve", &id, "--digest", &hold.digest.to_string()], None).await;
    assert_eq!((exit, out.trim()), (Ok(Exit::Ok), format!("{id}: approved").as_str()), "{err}");
    let stored = shell.world.store.get(hold.id).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.approvals[0].channel.as_str()), (State::Approved, "cli"));
    shell.stop.send(true).unwrap();
}

#[tokio::test]
async fn on_a_terminal_the_whole_hold_is_read_and_its_code_typed() {
    let shell = Shell::start().await;
    let hold = shell.world.hold(88_000).await;
    let (id, code) = (hold.id.hold().to_string(), short_code(&hold.digest));
    let (exit, _, err) = shell.run("maya", &["approve", &id], Some("1234-5678-90\n")).await;
    assert!(exit.unwrap_err().contains("not its code"));
    assert!(err.contains("/amountMinor = 88000"), "{err}");
    let (exit, _, _) = shell.run("maya", &["approve", &id, "--no-input"], Some(&code)).await;
    assert!(exit.is_err());
    let typed = format!("{}\nticket checked\n", code.to_lowercase());
    let (exit, out, err) = shell.run("maya", &["approve", &id], Some(&typed)).await;
    assert_eq!(exit, Ok(Exit::Ok), "{err}");
    assert!(out.contains("APPROVED BY 1 OF 2") && out.contains("finance: still needed"), "{out}");
    let stored = shell.world.store.get(hold.id).await.unwrap().unwrap();
    assert_eq!(stored.approvals[0].justification.as_deref(), Some("ticket checked"));
    let args = ["reject", &code, "--reason", "wrong_amount", "--message", "ask for less"];
    let (exit, out, _) = shell.run("finn", &args, None).await;
    assert_eq!((exit, out.contains("rejected")), (Ok(Exit::Ok), true));
    let (exit, out, _) = shell.run("finn", &["reject", &id, "--reason", "nope", "--json"], None).await;
    assert_eq!(exit, Ok(Exit::Rejected));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["code"], "invalid_arguments");
}

#[tokio::test]
async fn two_people_settle_an_unknown_call_from_a_terminal() {
    let shell = Shell::start().await;
    shell.world.with_petra();
    let call = shell.world.unknown().await.id.to_string();
    let (exit, out, err) = shell.run("pat", &["calls", "list", "--state", "unknown"], None).await;
    assert_eq!(exit, Ok(Exit::Ok), "{err}");
    assert!(out.contains(&call) && out.contains("unknown") && out.lines().all(|l| l.chars().count() <= 80), "{out}");
    assert!(shell.run("maya", &["calls", "ls"], None).await.1.contains("no such call"));
    let say = |outcome: &'static str| {
        ["calls", "reconcile", &*call, "--outcome", outcome, "--reason", "the bank's list"].map(str::to_owned)
    };
    let run = async |who: &str, outcome: &'static str| {
        let args = say(outcome);
        shell.run(who, &args.each_ref().map(String::as_str), None).await
    };
    let (exit, _, err) = run("pat", "not_executed").await;
    assert_eq!((exit, err.contains("too_early")), (Ok(Exit::Rejected), true), "{err}");
    let (exit, out, _) = run("pat", "succeeded").await;
    assert_eq!((exit, out.contains("unknown; a second person")), (Ok(Exit::Ok), true), "{out}");
    let (_, out, _) = shell.run("pat", &["calls", "show", &call], None).await;
    assert!(out.contains("the bank's list") && out.contains("on the wire to"), "{out}");
    assert_eq!(run("pat", "succeeded").await.0, Ok(Exit::Rejected));
    let (exit, out, _) = run("petra", "succeeded").await;
    assert_eq!((exit, out.trim()), (Ok(Exit::Ok), &*format!("{call}: succeeded")));
}

#[tokio::test]
async fn a_token_does_not_cross_a_network_in_the_clear() {
    let shell = Shell::start().await;
    let at = |url: &str| At { url: url.to_owned(), token_file: Some(shell.token("maya")), ca: None };
    for url in
        ["http://holdpoint.acme.dev:8701", "http://10.0.0.1", "ftp://localhost", "http://u@localhost", "localhost"]
    {
        assert!(Client::new(&at(url)).is_err(), "{url}");
    }
    for url in ["http://localhost:1", "http://[::1]:8701", "https://holdpoint.acme.dev"] {
        Client::new(&at(url)).map(|_| ()).unwrap_or_else(|e| panic!("{url}: {e:#}"));
    }
    let (exit, _, err) = shell.run("nobody", &["show", "hold_x"], None).await;
    assert_eq!((exit, err.contains("not_found")), (Ok(Exit::Rejected), true));
    let missing = At { url: shell.url.clone(), token_file: Some("none".into()), ca: None };
    assert!(Client::new(&missing).is_err());
}

#[tokio::test]
async fn what_happens_is_told_line_by_line() {
    let shell = Shell::start().await;
    // The first ones may come before anybody listens.
    let asked = async {
        for _ in 0..90 {
            shell.world.hold(8800).await;
        }
        std::future::pending::<()>().await;
    };
    let (ran, told, err) = tokio::select! {
        ran = shell.run("maya", &["watch", "--count", "2"], None) => ran,
        () = asked => unreachable!("it waits for ever"),
    };
    assert_eq!((ran, err.as_str()), (Ok(Exit::Ok), ""));
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.lines().all(|l| l.contains("created      medium") && l.contains("Refund 88.00 EUR")), "{told}");
}
