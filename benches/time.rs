//! How long requests take with sessions, as multiples of the router without them.
//!
//! The two take turns in one run, and the median of the ratios is told: what else the machine does
//! then falls on both. A table says what one request after the other takes, another what many tasks get
//! done that send requests at the same time, all of one session or each of its own.
//!
//! ```text
//! cargo bench --bench time
//! ```

#[path = "requests/ours.rs"]
mod ours;
mod requests;

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::MemoryStore;
use tokio::task::JoinSet;

use crate::requests::{Requests, SCENARIOS, bare, scenario};

const TASKS: [usize; 3] = [1, 16, 64];

fn main() {
    let measured = env::args().any(|argument| argument == "--bench");
    let (rounds, requests) = if measured { (21, 2_000) } else { (1, 1) };

    let single = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let single = single.expect("a runtime");
    println!("| one request after the other | bare router | session adds | ratio |");
    println!("|---|--:|--:|--:|");
    for scenario in SCENARIOS {
        let ours = ours::application(MemoryStore::new());
        let (bare, added, ratio) = single.block_on(async {
            let bare = (
                bare(),
                Requests::prepare(&bare(), scenario, requests * rounds).await,
            );
            let ours_requests = Requests::prepare(&ours, scenario, requests * rounds).await;
            let mut times = Vec::new();
            for _ in 0..rounds {
                let without = time(bare.1.send(&bare.0, requests)).await;
                let with = time(ours_requests.send(&ours, requests)).await;
                times.push((without, with));
            }
            summary(&times, requests)
        });
        println!(
            "| {} | {} ns | {} ns | {ratio:.2} |",
            scenario.name,
            bare.as_nanos(),
            added.as_nanos()
        );
    }

    let both_cores = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("\n| tasks at the same time | 1 | 16 | 64 |");
    println!("|---|--:|--:|--:|");
    for name in ["untouched", "read", "increment"] {
        for one_session in [true, false] {
            let ratios = TASKS.map(|tasks| {
                let ratio = both_cores.block_on(crowd(name, tasks, one_session, rounds, requests));
                format!("{ratio:.2}")
            });
            let of = if one_session {
                "of one session"
            } else {
                "each of its own"
            };
            println!(
                "| {name}, {of}: times the bare router | {} |",
                ratios.join(" | ")
            );
        }
    }
}

async fn time(work: impl Future) -> Duration {
    let start = Instant::now();
    work.await;
    start.elapsed()
}

/// The medians of a request without and of what a session adds, and of their ratio.
fn summary(times: &[(Duration, Duration)], requests: usize) -> (Duration, Duration, f64) {
    let requests = u32::try_from(requests).expect("a few thousand");
    let bare = median(times.iter().map(|(without, _)| *without).collect()) / requests;
    let added = times
        .iter()
        .map(|(without, with)| with.saturating_sub(*without));
    let added = median(added.collect()) / requests;
    let ratios = times
        .iter()
        .map(|(without, with)| with.as_secs_f64() / without.as_secs_f64());
    (bare, added, median(ratios.collect()))
}

/// How much longer many tasks take over their requests.
async fn crowd(name: &str, tasks: usize, one_session: bool, rounds: usize, requests: usize) -> f64 {
    let applications = [bare(), ours::application(MemoryStore::new())];
    let mut prepared = Vec::new();
    for app in &applications {
        let sessions = if one_session { 1 } else { tasks };
        let mut each = Vec::new();
        for _ in 0..sessions {
            each.push(Arc::new(Requests::prepare(app, scenario(name), 1).await));
        }
        prepared.push(each);
    }
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let mut taken = Vec::new();
        for (app, sessions) in applications.iter().zip(&prepared) {
            taken.push(
                time(send_at_once(app, sessions, tasks, requests))
                    .await
                    .as_secs_f64(),
            );
        }
        ratios.push(taken[1] / taken[0]);
    }
    median(ratios)
}

async fn send_at_once(app: &Router, sessions: &[Arc<Requests>], tasks: usize, requests: usize) {
    let mut at_work = JoinSet::new();
    for task in 0..tasks {
        let (app, session) = (app.clone(), Arc::clone(&sessions[task % sessions.len()]));
        at_work.spawn(async move { session.send(&app, requests.div_ceil(tasks)).await });
    }
    at_work.join_all().await;
}

fn median<T: PartialOrd + Copy>(mut of: Vec<T>) -> T {
    of.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    of[of.len() / 2]
}
