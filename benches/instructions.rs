//! How many instructions a session adds to a request: the same whatever else the machine does.
//!
//! Each scenario runs in a process of its own under valgrind's callgrind, for N and for 2 N requests;
//! the difference is what N requests cost. What the router costs without a layer is subtracted. Beside it stands
//! what the least of layers adds that keeps the first of our promises (see `requests/floor.rs`), and below
//! what a small layer adds that loses nothing (`requests/small.rs`).
//! SHA-256 runs in software there: valgrind knows none of the processor's instructions for it.
//!
//! ```text
//! cargo bench --features signed --bench instructions                    prints the table
//! cargo bench --features signed --bench instructions -- --check FILE    and fails above a bound of it
//! ```

#[path = "requests/floor.rs"]
mod floor;
#[path = "requests/ours.rs"]
mod ours;
mod requests;
#[path = "requests/small.rs"]
mod small;

use std::process::{Command, ExitCode};
use std::{env, fs};

use axum::Router;
use cloakroom::{KeyRing, MemoryStore, SessionLayer};

use crate::requests::{Requests, SCENARIOS, bare, scenario};

/// Requests of the shorter run.
const N: usize = 500;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["child", application, name, count] => {
            let count = count.parse().expect("a number");
            run(&router(application), name, count);
        }
        [.., "--check", bounds, "--bench"] | ["--bench", "--check", bounds] => {
            return check(&table(), &fs::read_to_string(bounds).expect("the bounds"));
        }
        _ if arguments.contains(&"--bench") => {
            table();
        }
        // `cargo test`.
        _ => {
            for scenario in SCENARIOS {
                for application in ["bare", "ours", "signed"] {
                    run(&router(application), scenario.name, 1);
                }
                if floor::SCENARIOS.contains(&scenario.name) {
                    run(&router("floor"), scenario.name, 1);
                }
            }
            for name in small::SCENARIOS {
                run(&router("small"), name, 1);
            }
        }
    }
    ExitCode::SUCCESS
}

fn router(application: &str) -> Router {
    match application {
        "bare" => bare(),
        "floor" => floor::application(),
        "small" => small::application(),
        "signed" => {
            let keys = KeyRing::generate().expect("random bytes");
            let layer = SessionLayer::builder(MemoryStore::new()).signed(keys);
            ours::under(layer.build().expect("the settings fit together"))
        }
        _ => ours::application(MemoryStore::new()),
    }
}

fn run(app: &Router, name: &str, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let requests = Requests::prepare(app, scenario(name), 2 * N).await;
        requests.send(app, count).await;
    });
}

/// Prints what each scenario adds over the bare router, and what any layer does at least.
fn table() -> Vec<(&'static str, u64)> {
    println!("| instructions a request | bare router | session adds | floor |");
    println!("|---|--:|--:|--:|");
    let rows = SCENARIOS
        .into_iter()
        .map(|scenario| (scenario.name, "ours", scenario.name))
        .chain([
            ("read, signed", "signed", "read"),
            ("read, signed, forged", "signed", "read, forged"),
        ])
        .map(|(name, application, scenario)| {
            let bare = cost("bare", scenario);
            let added = cost(application, scenario).saturating_sub(bare);
            let floor = if floor::SCENARIOS.contains(&name) {
                cost("floor", scenario).saturating_sub(bare).to_string()
            } else {
                String::new()
            };
            println!("| {name} | {bare} | {added} | {floor} |");
            (name, added)
        })
        .collect();
    for name in small::SCENARIOS {
        let small = cost("small", name).saturating_sub(cost("bare", name));
        println!("| {name}: a small layer that loses nothing | | | {small} |");
    }
    rows
}

/// Instructions of one request.
fn cost(application: &str, name: &str) -> u64 {
    let [once, twice] = [N, 2 * N].map(|count| collected(application, name, count));
    twice.saturating_sub(once) / N as u64
}

/// Instructions of a process that sends `count` requests.
fn collected(application: &str, name: &str, count: usize) -> u64 {
    let program = env::current_exe().expect("this program");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["child", application, name, &count.to_string()])
        .output();
    let run = run.expect("valgrind is installed (Debian: `apt-get install valgrind`)");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let collected = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    collected
        .and_then(|n| n.trim().parse().ok())
        .expect("callgrind says what it collected")
}

/// Compares with lines of `bound scenario`.
fn check(costs: &[(&str, u64)], bounds: &str) -> ExitCode {
    let bound = |name: &str| {
        bounds.lines().find_map(|line| {
            let (bound, of) = line.trim().split_once(' ')?;
            (of == name).then(|| bound.parse::<u64>().ok())?
        })
    };
    let mut code = ExitCode::SUCCESS;
    for (name, cost) in costs {
        let bound = bound(name).unwrap_or_else(|| panic!("no bound for `{name}`"));
        if *cost > bound {
            eprintln!("{name}: {cost} instructions, above the bound of {bound}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
