//! One job in full: every policy, its schedule in words, its next firings, its live runs and its
//! newest records.

use carillon_core::job::{Checked, Job, JobEntry};
use carillon_core::schedule::Upcoming;
use chrono::TimeDelta;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use super::history::{exit, why};
use super::jobs::{clock, role, short};
use super::running::{size, span};
use crate::model::Model;
use crate::model::jobs::JobState;
use crate::model::layers::Details;
use crate::model::runs::state_word;
use crate::text;
use crate::theme::{Role, Theme};

/// How many firings are shown.
const FIRINGS: usize = 10;

/// Draws the details over the view.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, pane: &Details) {
    let theme = &model.theme;
    frame.render_widget(Clear, area);
    frame.buffer_mut().set_style(area, theme.get(Role::Text));
    let lines = match model.job(&pane.job) {
        Some(entry) => lines(model, entry, pane, usize::from(area.width)),
        None => vec![
            Line::styled(text::clean(pane.job.as_str()).into_owned(), theme.get(Role::Title)),
            Line::styled("this job is gone: somebody deleted it", theme.get(Role::Warn)),
        ],
    };
    let last = lines.len().saturating_sub(usize::from(area.height));
    let scroll = pane.scroll.min(last);
    let shown: Vec<_> = lines.into_iter().skip(scroll).take(usize::from(area.height)).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

fn lines(model: &Model, entry: &JobEntry, pane: &Details, width: usize) -> Vec<Line<'static>> {
    let theme = &model.theme;
    let live = model.replica.live_of(&entry.name).count();
    let state = JobState::of(entry, live);
    let mut lines = vec![Line::from(vec![
        Span::styled(format!(" {}", text::clean(entry.name.as_str())), theme.get(Role::Title)),
        Span::styled(
            format!("   {}   revision {}", state.word(), entry.mod_revision),
            theme.get(Role::Dim),
        ),
    ])];
    match &entry.state {
        Ok(checked) => whole(model, checked, &mut lines, width),
        Err(problems) => {
            lines.push(heading(theme, "BROKEN: it does not run until it is mended"));
            for problem in &problems.0 {
                let line = format!("  {}", text::clean(&problem.to_string()));
                lines.push(Line::styled(line, theme.get(Role::Error)));
            }
            lines.push(heading(theme, "STORED VALUE"));
            for raw in String::from_utf8_lossy(&entry.raw).lines().take(20) {
                let line = text::fit(raw, width.saturating_sub(2));
                lines.push(Line::styled(format!("  {line}"), theme.get(Role::Dim)));
            }
        }
    }
    if live > 0 {
        lines.push(heading(theme, "RUNNING NOW"));
        for run in model.replica.live_of(&entry.name) {
            let pid = run.value.pid.map_or_else(|| "-".to_owned(), |p| p.to_string());
            let elapsed = span(model.now - run.value.since);
            let line = format!(
                "  {} on {}, pid {pid}, {elapsed}",
                state_word(&model.replica, run),
                run.value.worker
            );
            lines.push(Line::styled(line, theme.get(Role::Running)));
        }
    }
    records(model, pane, &mut lines, width);
    lines
}

fn heading(theme: &Theme, title: &'static str) -> Line<'static> {
    Line::styled(format!(" {title}"), theme.get(Role::Header))
}

fn whole(model: &Model, checked: &Checked, lines: &mut Vec<Line<'static>>, width: usize) {
    let theme = &model.theme;
    let job = &checked.job;
    let zone = model.replica.zone_of(checked);
    let room = width.saturating_sub(16);
    let mut field = |name: &str, value: String| {
        lines.push(Line::from(vec![
            Span::styled(format!("  {name:<13} "), theme.get(Role::Dim)),
            Span::styled(text::fit(&value, room), theme.get(Role::Text)),
        ]));
    };
    if !job.description.is_empty() {
        field("description", job.description.clone());
    }
    field("schedule", job.cron_expr.clone());
    let words = match &zone {
        Ok(zone) => checked.schedule.describe_in(*zone),
        Err(_) => checked.schedule.describe(),
    };
    for line in text::wrap(&words, room) {
        field("", line);
    }
    field(
        "zone",
        match (&zone, checked.zone) {
            (Ok(zone), Some(_)) => zone.to_string(),
            (Ok(zone), None) => format!("{zone} (the fleet's default)"),
            (Err(why), _) => why.clone(),
        },
    );
    for (i, line) in job.command.lines().take(8).enumerate() {
        field(if i == 0 { "command" } else { "" }, line.to_owned());
    }
    for (name, value) in policies(job) {
        field(name, value);
    }
    let Ok(zone) = zone else {
        lines.push(heading(theme, "NEXT FIRINGS: none without a zone"));
        return;
    };
    // A slot whose start is still put off is to come.
    let put_off = TimeDelta::seconds(job.spread().into());
    let coming: Vec<_> = checked.schedule.timeline(zone, model.now - put_off, FIRINGS).collect();
    let never = !coming.iter().any(|next| matches!(next, Upcoming::Firing { .. }));
    lines.push(heading(
        theme,
        match (job.enabled, never) {
            (_, true) => "NEXT FIRINGS: none",
            (true, false) => "NEXT FIRINGS",
            (false, false) => "NEXT FIRINGS, IF IT WERE NOT PAUSED",
        },
    ));
    for next in coming {
        let (at, note) = match next {
            Upcoming::Firing { at, note } => (at, note.map(|note| note.to_string())),
            Upcoming::Skipped(skipped) => {
                let line = format!("  {:<13} {}", "", skipped.in_short());
                lines.push(Line::styled(line, theme.get(Role::Warn)));
                continue;
            }
        };
        let relative = format!("in {}", text::ago(at + put_off - model.now));
        let absolute = clock(at, model.now, zone);
        lines.push(Line::from(vec![
            Span::styled(format!("  {relative:<13} "), theme.get(Role::Text)),
            Span::styled(format!("{absolute}  "), theme.get(Role::Dim)),
            Span::styled(note.unwrap_or_default(), theme.get(Role::Warn)),
        ]));
    }
}

fn spread(job: &Job) -> String {
    match job.spread_secs {
        0 => "none".to_owned(),
        within => {
            let by = job.spread();
            format!("{by} s after each slot, chosen within {within} s by the name")
        }
    }
}

fn policies(job: &Job) -> Vec<(&'static str, String)> {
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        let pairs = map.iter().map(|(k, v)| format!("{k}={v}"));
        pairs.collect::<Vec<_>>().join(" ")
    };
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let mut all = vec![
        ("concurrency", job.concurrency.to_string()),
        (
            "timeout",
            match job.timeout_secs {
                0 => "none".to_owned(),
                n => format!("{n} s"),
            },
        ),
        ("start deadline", format!("{} s", job.start_deadline_secs)),
        ("spread", spread(job)),
        ("kill grace", format!("{} s", job.kill_grace_secs)),
        ("catch-up", word(&job.catch_up)),
        ("retries", job.retries.max.to_string()),
        ("on lost", word(&job.on_lost)),
        ("shell", job.shell.clone()),
    ];
    let optional = [
        ("owner", job.owner.clone()),
        ("labels", pairs(&job.labels)),
        ("selector", pairs(&job.selector)),
        ("user", job.user.clone().unwrap_or_default()),
        ("directory", job.cwd.clone().unwrap_or_default()),
        ("environment", pairs(&job.env)),
        ("umask", job.umask.clone().unwrap_or_default()),
        ("anchor", job.anchor.map_or_else(String::new, |at| at.format("%F %T UTC").to_string())),
    ];
    all.extend(optional.into_iter().filter(|(_, value)| !value.is_empty()));
    let limit = i64::try_from(job.output_limit_bytes).unwrap_or(i64::MAX);
    all.push(("output limit", size(limit)));
    if !job.extra.is_empty() {
        let names: Vec<&str> = job.extra.keys().map(String::as_str).collect();
        all.push(("other fields", names.join(" ")));
    }
    all
}

fn records(model: &Model, pane: &Details, lines: &mut Vec<Line<'static>>, width: usize) {
    let theme = &model.theme;
    lines.push(heading(theme, "NEWEST RECORDS"));
    let records = match &pane.records {
        None => {
            lines.push(Line::styled("  reading…", theme.get(Role::Dim)));
            return;
        }
        Some(Err(why)) => {
            let why = text::clean(why).into_owned();
            lines.push(Line::styled(format!("  {why}"), theme.get(Role::Warn)));
            return;
        }
        Some(Ok(records)) => records,
    };
    if records.is_empty() {
        lines.push(Line::styled("  none yet", theme.get(Role::Dim)));
    }
    for record in records {
        let ago = text::ago(model.now - record.start_time);
        let took = text::duration(record.duration(model.now));
        let exit = exit(record).map_or_else(String::new, |e| format!("exit {e}  "));
        let rest = format!("{took:<8} {:<12} {exit}{}", record.worker, why(record));
        lines.push(Line::from(vec![
            Span::styled(format!("  {ago:>4} ago  "), theme.get(Role::Dim)),
            Span::styled(format!("{:<10}", short(record.outcome)), theme.get(role(record.outcome))),
            Span::styled(text::fit(&rest, width.saturating_sub(22)), theme.get(Role::Text)),
        ]));
    }
}
