//! `carillon run`: a run outside the schedule, and with `--wait` its output and exit code.

use std::time::Duration;

use carillon_core::id::{JobName, RunId};
use carillon_core::records::{RecordsError, Tail, TailEvent};
use carillon_core::run::{Outcome, RunRecord};
use chrono::Utc;
use tokio::time::{Instant, sleep, timeout_at};

use super::print::OutputSink;
use super::{Failure, print, replica, told};
use crate::operator::Operator;

/// The exit code where Carillon itself failed, or the run did not succeed and has none that says so.
const OURS: u8 = 125;
/// For how long MongoDB may be away while a run is waited for.
const AWAY: Duration = Duration::from_secs(30);
/// Added to the start deadline: after it somebody has taken the run or settled it.
const MARGIN: Duration = Duration::from_secs(15);

pub(super) async fn run(operator: &Operator, name: &JobName, wait: bool) -> Result<(), Failure> {
    let asked = async {
        let id = told(operator.run_now(name, Utc::now()).await?);
        let replica = replica(operator).await?;
        if replica.workers.is_empty() {
            print::note("no worker is registered: the run waits for one until its start deadline");
        }
        let entry = replica.jobs.get(name).and_then(|entry| entry.job());
        let deadline = entry.map_or(60, |job| job.start_deadline_secs);
        Ok::<_, Failure>((id, Duration::from_secs(deadline.into()) + MARGIN))
    };
    let (id, deadline) = match asked.await {
        Ok(asked) => asked,
        Err(failure) if wait => {
            print::note(failure.message().unwrap_or_default());
            return Err(Failure::Exit(OURS));
        }
        Err(failure) => return Err(failure),
    };
    if !wait {
        return print::line(&id.to_string());
    }
    print::note(&format!("run {id} of {name}"));
    let (tail, sink) = (operator.records.tail(id, 0), OutputSink::new(false));
    match follow(operator, id, tail, &sink, Some(Instant::now() + deadline)).await {
        Ok(Some(record)) => end(&record),
        Ok(None) => {
            print::note("no worker took the run before its start deadline");
            Err(Failure::Exit(OURS))
        }
        Err(failure) => {
            print::note(failure.message().unwrap_or_default());
            Err(Failure::Exit(OURS))
        }
    }
}

/// Streams the output of a run to its end and returns its record; `None` where it has not begun
/// by `begin_by`.
pub(super) async fn follow(
    operator: &Operator,
    id: RunId,
    mut tail: Tail,
    sink: &OutputSink,
    begin_by: Option<Instant>,
) -> Result<Option<RunRecord>, Failure> {
    let mut begun = begin_by.is_none();
    let mut away_since: Option<Instant> = None;
    loop {
        let event = match begin_by {
            Some(limit) if !begun => match timeout_at(limit, tail.next()).await {
                Ok(event) => event,
                Err(_) => {
                    begun = operator.records.get(id).await?.is_some();
                    if !begun {
                        return Ok(None);
                    }
                    continue;
                }
            },
            _ => tail.next().await,
        };
        match event {
            Ok(TailEvent::Output(chunks)) => {
                begun = true;
                for chunk in chunks {
                    sink.write(&chunk.data)?;
                }
            }
            Ok(TailEvent::Ended(record)) => return Ok(Some(*record)),
            Err(e @ RecordsError::Unreachable { .. }) => {
                let since = *away_since.get_or_insert_with(|| {
                    print::note(&format!("{e}; waiting for it"));
                    Instant::now()
                });
                if since.elapsed() > AWAY {
                    return Err(e.into());
                }
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(e) => return Err(e.into()),
        }
        away_since = None;
    }
}

/// Says how the run ended and exits as it did.
fn end(record: &RunRecord) -> Result<(), Failure> {
    if !record.err.is_empty() {
        print::note(&format!("{}: {}", record.outcome, record.err));
    }
    match exit_code(record) {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// 0 for a success alone: a job that is killed or timed out may still exit with 0.
fn exit_code(record: &RunRecord) -> u8 {
    if record.outcome == Outcome::Succeeded {
        return 0;
    }
    let code = record.exit_code.filter(|code| *code != 0);
    let signal = record.signal.map(|n| 128 + n);
    code.or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_jobs_and_0_only_for_a_success() {
        let name = JobName::new("a").unwrap();
        let now = Utc::now();
        let mut record = RunRecord::new(RunId::new(now), &name, Outcome::Failed, now);
        assert_eq!(exit_code(&record), 125);
        record.exit_code = Some(3);
        assert_eq!(exit_code(&record), 3);
        (record.exit_code, record.signal) = (None, Some(15));
        assert_eq!(exit_code(&record), 143);
        (record.exit_code, record.signal) = (Some(0), None);
        for outcome in Outcome::ALL {
            record.outcome = outcome;
            let expected = if outcome == Outcome::Succeeded { 0 } else { 125 };
            assert_eq!(exit_code(&record), expected, "{outcome}");
        }
    }
}
