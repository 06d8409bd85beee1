//! `carillon apply`: jobs from JSON, all checked before the first is written.

use std::io::Read;
use std::path::Path;

use carillon_core::job::{Checked, Job, JobEntry};
use carillon_core::jobs::Expected;
use chrono::Utc;
use serde_json::{Value, json};

use super::{Failure, Format, print, replica, told};
use crate::operator::{Operator, is_same};

/// The largest file that is read, in bytes: far more than etcd's default quota holds as jobs.
const FILE_MAX_BYTES: u64 = 256 << 20;

/// What apply does with one job.
struct Plan {
    checked: Checked,
    verb: &'static str,
    expected: Expected,
}

pub(super) async fn apply(
    operator: &Operator,
    file: &Path,
    dry_run: bool,
    format: Format,
) -> Result<(), Failure> {
    let jobs = check(&read(file)?)?;
    let replica = replica(operator).await?;
    let plans: Vec<Plan> = jobs
        .into_iter()
        .map(|checked| plan(replica.jobs.get(&checked.name).map(AsRef::as_ref), checked))
        .collect();
    let mut results = Vec::new();
    let mut worst: Option<Failure> = None;
    for Plan { checked, verb, expected } in plans {
        let name = checked.name.clone();
        let zone = checked.zone.unwrap_or_default();
        if checked.schedule.next_after(zone, Utc::now()).is_none() {
            print::note(&format!("{}: its schedule never fires again", checked.name));
        }
        for field in unknown(&checked.job) {
            print::note(&format!("{name}: `{field}` is no field of a job; it is kept as it is"));
        }
        let outcome = match verb {
            "unchanged" => Ok(None),
            _ if dry_run => Ok(None),
            _ => {
                operator.save(checked.job, expected, verb, Utc::now()).await.map(|d| Some(told(d)))
            }
        };
        match outcome {
            Ok(revision) => {
                let done = match (verb, dry_run) {
                    ("unchanged", _) => "unchanged",
                    ("create", false) => "created",
                    ("create", true) => "would be created",
                    (_, false) => "changed",
                    (_, true) => "would be changed",
                };
                if format == Format::Table {
                    print::clean_line(&format!("{name} {done}"))?;
                }
                results.push(json!({"name": name, "result": done, "revision": revision}));
            }
            Err(e) => {
                let failure = Failure::from(e);
                let message = failure.message().unwrap_or_default().to_owned();
                print::note(&format!("{name}: {message}"));
                results.push(json!({"name": name, "result": "failed", "error": message}));
                worst = Some(failure.or_worse(worst));
            }
        }
    }
    if format == Format::Json {
        print::json(&results)?;
    }
    match worst {
        Some(failure) => Err(Failure::Exit(failure.code())),
        None => Ok(()),
    }
}

/// The fields that mean nothing to Carillon: another tool's, or misspelt.
fn unknown(job: &Job) -> impl Iterator<Item = String> {
    let inner = [("retries", &job.retries.extra), ("limits", &job.limits.extra)];
    let inner =
        inner.into_iter().flat_map(|(of, extra)| extra.keys().map(move |f| format!("{of}.{f}")));
    job.extra.keys().cloned().chain(inner)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let result = if file == Path::new("-") {
        std::io::stdin().lock().take(FILE_MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(FILE_MAX_BYTES).read_to_string(&mut text))
    };
    match result {
        Ok(_) => Ok(text),
        Err(e) => Err(Failure::Failed(format!("{}: {e}", file.display()))),
    }
}

/// Checks every job and names every problem of all of them.
fn check(text: &str) -> Result<Vec<Checked>, Failure> {
    let value: Value =
        serde_json::from_str(text).map_err(|e| Failure::Failed(format!("not JSON: {e}")))?;
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    let mut jobs: Vec<Checked> = Vec::new();
    let mut problems = Vec::new();
    for (i, value) in values.into_iter().enumerate() {
        let called = value.get("name").and_then(Value::as_str).map(str::to_owned);
        let called = called.unwrap_or_else(|| format!("job {}", i + 1));
        match Job::from_value(value).and_then(|job| job.check()) {
            Ok(checked) if jobs.iter().any(|other| other.name == checked.name) => {
                problems.push(format!("{called}: is there twice"));
            }
            Ok(checked) => jobs.push(checked),
            Err(all) => problems.extend(all.0.into_iter().map(|p| format!("{called}: {p}"))),
        }
    }
    if problems.is_empty() {
        return Ok(jobs);
    }
    for problem in &problems {
        print::note(problem);
    }
    Err(Failure::Failed("nothing was written".to_owned()))
}

fn plan(stored: Option<&JobEntry>, checked: Checked) -> Plan {
    let Some(entry) = stored else {
        return Plan { checked, verb: "create", expected: Expected::Absent };
    };
    let same = is_same(entry, &checked.job);
    let verb = if same { "unchanged" } else { "edit" };
    Plan { checked, verb, expected: Expected::Revision(entry.mod_revision) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_job_or_many_are_read_and_every_problem_is_found() {
        let good = r#"{"name":"a","command":"c","cronExpr":"@daily"}"#;
        assert_eq!(check(good).unwrap().len(), 1);
        assert_eq!(check(&format!("[{good}]")).unwrap().len(), 1);
        assert!(check(&format!("[{good},{good}]")).is_err());
        assert!(check("[1]").is_err() && check("{").is_err());
    }

    #[test]
    fn an_unchanged_job_is_not_written_again() {
        let text = r#"{"name":"a","command":"c","cronExpr":"@daily"}"#;
        let checked = check(text).unwrap().remove(0);
        let stored = text.replace('}', r#","updatedAt":"2026-01-01T00:00:00Z"}"#);
        let entry = JobEntry::read(checked.name.clone(), stored.as_bytes(), 7, 3);
        assert_eq!(plan(Some(&entry), checked.clone()).verb, "unchanged");
        assert_eq!(plan(None, checked).verb, "create");
    }
}
