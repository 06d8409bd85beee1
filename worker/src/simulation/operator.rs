//! What people do: jobs written, paused, deleted and made again, runs asked for and killed,
//! workers drained, settings changed.

use carillon_core::fleet::{FleetSettings, rules_version};
use carillon_core::id::{JobName, RunId};
use carillon_core::job::{CatchUp, Concurrency, Job, OnLeaseLoss, OnLost, Retries, Scope};
use carillon_core::keys::Key;
use carillon_core::run::{KillRequest, Trigger, TriggerRequest};
use carillon_core::steps::Step;
use chrono::TimeDelta;

use super::world::World;

const SCHEDULES: [&str; 5] =
    ["*/5 * * * * *", "@every 7s", "*/10 * * * * *", "*/15 * * * * *", "@every 13s"];

impl World {
    /// A job as the conditions have it.
    pub fn new_job(&mut self, name: &JobName) -> Job {
        let mut job = self.any_job(name);
        (self.conditions.jobs)(&mut job);
        job
    }

    fn any_job(&mut self, name: &JobName) -> Job {
        let r = &mut self.random;
        let concurrency = r.pick(&[
            Concurrency::Forbid,
            Concurrency::Forbid,
            Concurrency::Allow,
            Concurrency::Replace,
        ]);
        let continues = r.percent(25);
        let time_out = if continues || r.percent(20) { r.pick(&[3, 6, 9]) } else { 0 };
        let retries = Retries {
            max: r.pick(&[0, 0, 1, 2]),
            delay_secs: r.pick(&[0, 1, 4]),
            max_delay_secs: 5,
            ..Retries::default()
        };
        Job {
            name: name.to_string(),
            command: "c".to_owned(),
            cron_expr: r.pick(&SCHEDULES).to_owned(),
            enabled: r.percent(92),
            selector: match r.percent(20) {
                true => [("gpu".to_owned(), "yes".to_owned())].into(),
                false => Default::default(),
            },
            scope: if r.percent(25) { Scope::EveryWorker } else { Scope::Once },
            concurrency,
            start_deadline_secs: r.pick(&[1, 3, 3, 6, 12]),
            catch_up: r.pick(&[CatchUp::None, CatchUp::None, CatchUp::Latest, CatchUp::All]),
            catch_up_window_secs: r.pick(&[20, 60, 86_400]),
            timeout_secs: time_out,
            retries,
            on_lease_loss: if continues { OnLeaseLoss::Continue } else { OnLeaseLoss::Kill },
            on_lost: if r.percent(40) { OnLost::Rerun } else { OnLost::Record },
            kill_grace_secs: r.pick(&[0, 1, 3]),
            spread_secs: r.pick(&[0, 0, 0, 4]),
            ..Job::default()
        }
    }

    /// Somebody saves a job, with Carillon's own tools or with another one.
    pub fn write_job(&mut self, name: &JobName, mut job: Job) {
        if self.random.percent(60) {
            job.updated_at = Some(self.now);
        }
        let text = serde_json::to_string(&job).unwrap();
        self.tell(|_| format!("somebody writes {name}: {text}"));
        self.etcd.put(self.keys.job(name), &text);
        self.audit.written.insert(self.etcd.revision, self.now);
        self.jobs.insert(name.clone(), job);
    }

    fn delete_job(&mut self, name: &JobName) {
        self.tell(|_| format!("somebody deletes {name}"));
        self.etcd.delete(self.keys.job(name));
    }

    /// Somebody does something.
    pub fn operate(&mut self) {
        let names: Vec<JobName> = self.jobs.keys().cloned().collect();
        let name = self.random.pick(&names);
        let job = self.jobs[&name].clone();
        let exists = self.etcd.get(&self.keys.job(&name)).is_some();
        match self.random.below(24) {
            0..2 => {
                let cron_expr = self.random.pick(&SCHEDULES).to_owned();
                self.write_job(&name, Job { cron_expr, ..job });
            }
            2 => self.write_job(&name, Job { owner: "o".to_owned(), ..job }),
            3 => {
                let job = self.new_job(&name);
                self.write_job(&name, job);
            }
            4..6 => self.write_job(&name, Job { enabled: !job.enabled, ..job }),
            6 => {
                self.delete_job(&name);
                if self.random.percent(60) {
                    self.write_job(&name, job);
                }
            }
            7 if exists => self.delete_job(&name),
            7..9 => self.write_job(&name, job),
            9 if self.random.percent(30) => {
                self.tell(|_| format!("somebody breaks {name}"));
                self.etcd.put(self.keys.job(&name), "{");
            }
            9..13 => self.ask_for_run(&name),
            13..17 => self.ask_for_end(),
            17 => self.kill_all(&name),
            18 => self.withdraw(),
            19 => {
                let drained = self.random.below(self.nodes.len());
                let key = self.keys.drain(&self.nodes[drained].me.id);
                self.tell(|_| format!("somebody asks w{drained} to drain"));
                self.etcd.put(key, "");
            }
            20 => self.undrain(),
            _ => self.set_fleet(),
        }
    }

    pub fn ask_for_any_run(&mut self) {
        let names: Vec<JobName> = self.jobs.keys().cloned().collect();
        let name = self.random.pick(&names);
        self.ask_for_run(&name);
    }

    fn ask_for_run(&mut self, name: &JobName) {
        let Some(kv) = self.etcd.get(&self.keys.job(name)) else { return };
        let (created, now) = (kv.created, self.now);
        let secs = TimeDelta::seconds(self.random.between(1, 15));
        let request = TriggerRequest {
            kind: Trigger::Manual,
            slot: None,
            attempt: 1,
            not_before: now,
            not_after: now + secs,
            on: None,
            job_created: created,
            by: "me".to_owned(),
        };
        // No worker's clock shows this millisecond.
        let id = RunId::new(now + TimeDelta::milliseconds(7));
        let step = Step::request_run(&self.keys, name, id, &request);
        self.carry_out(step);
    }

    fn ask_for_end(&mut self) {
        let prefix = "/cron/running/";
        let live: Vec<String> = self.etcd.range(prefix).map(|(key, _)| key.to_owned()).collect();
        if live.is_empty() {
            return;
        }
        let key = self.random.pick(&live);
        let Key::Running(job, on, run) = self.keys.parse(key.as_bytes()) else { return };
        let request = KillRequest { grace_secs: None, by: "me".to_owned(), at: self.now };
        let step = Step::request_kill(&self.keys, &job, on.as_ref(), run, &request);
        self.carry_out(step);
    }

    fn kill_all(&mut self, name: &JobName) {
        let key = self.keys.kill_job(name);
        self.tell(|_| format!("somebody kills all of {name}"));
        self.etcd.put(key.clone(), "");
        if self.random.percent(30) {
            self.etcd.delete(key);
        }
    }

    fn withdraw(&mut self) {
        let keys: Vec<_> = self.etcd.range("/cron/trigger/").map(|(k, _)| k.to_owned()).collect();
        if !keys.is_empty() {
            let key = self.random.pick(&keys);
            self.tell(|_| "somebody withdraws a trigger".to_owned());
            self.etcd.delete(key);
        }
    }

    fn undrain(&mut self) {
        for node in 0..self.nodes.len() {
            let key = self.keys.drain(&self.nodes[node].me.id);
            self.etcd.delete(key);
        }
    }

    fn set_fleet(&mut self) {
        let frozen = !self.quiet && self.random.percent(35);
        let zone = self.random.pick(&["UTC", "UTC", "Asia/Kathmandu"]);
        let settings = FleetSettings {
            default_timezone: Some(zone.to_owned()),
            rules_version: Some(rules_version().to_owned()),
            frozen,
            ..FleetSettings::default()
        };
        self.tell(|_| format!("the fleet's zone is {zone}, frozen {frozen}"));
        self.etcd.put(self.keys.settings(), &serde_json::to_string(&settings).unwrap());
    }

    fn carry_out(&mut self, step: Step) {
        let steps = [step];
        let verdicts = self.etcd.judge(&steps);
        let answers = self.etcd.carry_out(&steps, &verdicts);
        self.tell(|w| format!("somebody asks:{} {answers:?}", w.words(&steps[0])));
    }

    /// From now on no schedule makes anything new; what is drained or frozen goes on.
    pub fn pause_all(&mut self) {
        self.undrain();
        let names: Vec<JobName> = self.jobs.keys().cloned().collect();
        for name in names {
            if self.etcd.get(&self.keys.job(&name)).is_some() {
                let job = Job { enabled: false, ..self.jobs[&name].clone() };
                self.write_job(&name, job);
            }
        }
    }

    /// The fleet is neither frozen nor drained.
    pub fn let_go_on(&mut self) {
        self.undrain();
        self.set_fleet();
    }
}
