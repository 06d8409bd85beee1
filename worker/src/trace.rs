pub(crate) fn t(what: &str, run: impl std::fmt::Display) {
    use std::io::Write;
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let mut f = std::fs::OpenOptions::new().create(true).append(true).open("/tmp/trace.log").unwrap();
    f.write_all(format!("{at} {what} {run}\n").as_bytes()).unwrap();
}
