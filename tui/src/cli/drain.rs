//! `carillon drain` and `undrain`: each worker by itself, the unknown ones named.

use carillon_core::id::WorkerId;
use chrono::Utc;

use super::{Failure, print, replica, told};
use crate::operator::Operator;

pub(super) async fn drain(
    operator: &Operator,
    workers: &[WorkerId],
    on: bool,
) -> Result<(), Failure> {
    let replica = replica(operator).await?;
    let mut worst = None;
    for worker in workers {
        let asked = replica.drains.contains(worker);
        // What was asked of a worker that is gone may still be withdrawn.
        if !replica.workers.contains_key(worker) && (on || !asked) {
            let all: Vec<&str> = replica.workers.keys().map(WorkerId::as_str).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            let message = format!("no worker {worker} is registered (registered now: {all})");
            print::note(&message);
            worst = Some(Failure::Exit(1).or_worse(worst));
            continue;
        }
        let state = match (on, asked) {
            (true, true) => "was draining already",
            (false, false) => "was not draining",
            (true, false) => "drains: it finishes its runs and takes nothing new",
            (false, true) => "takes work again",
        };
        if on != asked {
            match operator.drain(worker, on, Utc::now()).await {
                Ok(done) => told(done),
                Err(e) => {
                    let failure = Failure::from(e);
                    print::note(&format!("{worker}: {}", failure.message().unwrap_or_default()));
                    worst = Some(failure.or_worse(worst));
                    continue;
                }
            }
        }
        print::clean_line(&format!("{worker} {state}"))?;
    }
    worst.map_or(Ok(()), |failure| Err(Failure::Exit(failure.code())))
}
