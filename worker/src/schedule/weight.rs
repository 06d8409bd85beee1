//! What a job weighs in a worker's mind.

use std::time::Instant;

use super::*;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn item(key: String, value: String, revision: i64) -> Item {
    Item {
        key: key.into(),
        value: Some(value.into()),
        mod_revision: revision,
        create_revision: revision,
        lease: 0,
    }
}

fn name(number: usize) -> String {
    format!("team-{:02}-settlement-{number:07}", number % 40)
}

fn expr(number: usize) -> String {
    format!("{} {} * * *", number % 60, number % 24)
}

fn job(number: usize) -> Item {
    let (name, expr) = (name(number), expr(number));
    let json = format!(
        r#"{{"name":"{name}","command":"/opt/settlement/bin/settle --account {number} --ledger main","cronExpr":"{expr}","owner":"payments","labels":{{"team":"pay"}},"updatedAt":"2026-01-01T00:00:00.123456789Z"}}"#
    );
    item(format!("/cron/jobs/{name}"), json, number as i64 + 2)
}

fn cursor(number: usize) -> Item {
    let (name, expr, rev, rules) = (name(number), expr(number), number + 2, rules_version());
    let json = format!(
        r#"{{"rev":{rev},"expr":"{expr}","zone":"UTC","enabled":true,"rules":"{rules}","through":"2026-01-01T00:00:00.123456789Z","updatedAt":"2026-01-01T00:00:00.123456789Z"}}"#
    );
    item(format!("/cron/cursor/{name}"), json, 5_000_000 + number as i64)
}

/// The pages of a list, as etcd delivers them: read in another thread, at most a few in advance.
fn listed(jobs: usize) -> std::sync::mpsc::Receiver<Feed> {
    let (sender, pages) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut numbers: Vec<usize> = (0..jobs).collect();
        numbers.sort_by_key(|number| name(*number));
        // With PAGES, what the same fleet takes when nothing but a page is held at a time.
        for page in numbers.chunks(5_000).filter(|_| std::env::var("PAGES").is_ok()) {
            let items = page.iter().flat_map(|n| [job(*n), cursor(*n)]).collect();
            sender.send(Feed::Changes { revision: 10_000_000, items }).unwrap();
        }
        if std::env::var("PAGES").is_ok() {
            return;
        }
        let all = numbers.iter().map(|n| cursor(*n)).chain(numbers.iter().map(|n| job(*n)));
        let items = all.collect();
        sender.send(Feed::Snapshot { revision: 10_000_000, cluster: 1, items }).unwrap();
    });
    pages
}

#[test]
fn weight() {
    let jobs: usize = std::env::var("JOBS").map_or(10_000, |jobs| jobs.parse().unwrap());
    let text: usize = (0..jobs).map(|n| job(n).value.unwrap().len()).sum();
    let now = "2026-01-01T00:00:01Z".parse().unwrap();
    let keys = Keys::new("/cron").unwrap();
    let me = WorkerId::new("w").unwrap();
    let mut schedule = Schedule::new(keys, me, BTreeMap::new(), TimeDelta::seconds(10));
    let before = resident();
    let tell = |what: &str, begun: Instant| {
        let bytes = (resident() - before) as f64;
        println!(
            "{what}: {:.1} s, {:.0} bytes a job beyond its {} of text",
            begun.elapsed().as_secs_f64(),
            (bytes - text as f64) / jobs as f64,
            text / jobs
        );
    };
    for round in 1..=3 {
        let begun = Instant::now();
        for feed in listed(jobs) {
            schedule.take(&feed, now);
        }
        tell(&format!("list {round}"), begun);
        let begun = Instant::now();
        while let Some(due) = schedule.pop_due(now, true) {
            let Due::Job(job) = due else { panic!("{due:?}") };
            assert!(schedule.look_at(&job, 1, now).unwrap().is_none());
        }
        tell(&format!("filed {round}"), begun);
    }
}
