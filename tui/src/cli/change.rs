//! `carillon delete`, `pause` and `resume`: each job by itself, the failed ones named.

use carillon_core::id::JobName;
use chrono::Utc;

use super::{Failure, print, told};
use crate::operator::Operator;

pub(super) async fn delete(operator: &Operator, names: &[JobName]) -> Result<(), Failure> {
    let mut worst = None;
    for name in names {
        let deleted = async {
            let entry = operator.job(name).await?;
            operator.delete(name, entry.mod_revision, Utc::now()).await
        };
        match deleted.await {
            Ok(done) => {
                told(done);
                print::clean_line(&format!("{name} deleted"))?;
            }
            Err(e) => worst = Some(tell(name, e.into()).or_worse(worst)),
        }
    }
    end(worst)
}

pub(super) async fn set_enabled(
    operator: &Operator,
    names: &[JobName],
    enabled: bool,
) -> Result<(), Failure> {
    let mut worst = None;
    for name in names {
        match operator.set_enabled(name, enabled, Utc::now()).await {
            Ok(done) => {
                let changed = told(done);
                let state = match (changed, enabled) {
                    (true, true) => "resumed",
                    (true, false) => "paused",
                    (false, true) => "was not paused",
                    (false, false) => "was paused already",
                };
                print::clean_line(&format!("{name} {state}"))?;
            }
            Err(e) => worst = Some(tell(name, e.into()).or_worse(worst)),
        }
    }
    end(worst)
}

fn tell(name: &JobName, failure: Failure) -> Failure {
    if let Some(message) = failure.message() {
        print::note(&format!("{name}: {message}"));
    }
    failure
}

fn end(worst: Option<Failure>) -> Result<(), Failure> {
    worst.map_or(Ok(()), |failure| Err(Failure::Exit(failure.code())))
}
