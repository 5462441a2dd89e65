//! What commands print: stdout that ends quietly when its reader goes away, errors on stderr, sizes for people.

use crate::admin::Done;
use crate::error::{Error, Result};
use serde::Serialize;
use std::io::{ErrorKind, Write as _};

/// Writes `text` to stdout. A reader that went away is no error: it has what it wanted.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::from_io("write to stdout", error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes `value` as one JSON document to stdout.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::internal(format!("encode the answer: {error}")))?;
    print(&format!("{text}\n"))
}

/// What an order gives that is done: to scripts that it is, to people nothing.
pub fn done(done: Done, json: bool) -> Result<()> {
    if json { print_json(&done) } else { Ok(()) }
}

/// Tells people on stderr what went wrong.
pub fn complain(error: &Error) {
    tell(&format!("ironfs: {error}"));
}

/// Tells people something on stderr that is not the command's result.
pub fn tell(sentence: &str) {
    // Where stderr is gone there is nobody to tell.
    drop(writeln!(std::io::stderr().lock(), "{sentence}"));
}

/// Asks on the terminal whether to do what `plan` says.
///
/// Errors: `Refused` if the answer is no, or if there is neither a terminal nor `yes`.
pub fn confirm(plan: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    tell(&format!("{plan}."));
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Error::refused("there is no terminal to ask on: say --yes"));
    }
    tell("Go on? [y/N]");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Error::from_io("read the answer", error))?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::refused("nothing was changed")),
    }
}

/// Bytes for people: `12.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("EiB", 1 << 60),
        ("PiB", 1 << 50),
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    for (name, unit) in UNITS {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// Seconds for people: `3 min 20 s`.
pub fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

/// A bar on stderr for long work of `total` bytes; silent where there is no terminal.
pub fn bar(total: u64) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(total);
    let style = indicatif::ProgressStyle::with_template(
        "{wide_bar} {binary_bytes} of {binary_total_bytes}  {msg}",
    );
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Rows as aligned columns; numbers (every column but the first that only holds digits and units) are not told
/// apart: all columns are left-aligned.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{size, span, table};

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
    }

    #[test]
    fn spans() {
        let cases = [(0, "0 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")];
        cases.into_iter().for_each(|(seconds, text)| assert_eq!(span(seconds), text));
    }

    #[test]
    fn columns_align() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a     b\nlong  c\n");
    }
}
