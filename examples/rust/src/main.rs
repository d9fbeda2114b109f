//! embed BUNDLE [VARIANT] < texts: a line of JSON for each line of text, with token ids and vector.

mod c;
mod embedder;
mod onnxruntime;

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use embedder::Embedder;

const USAGE: &str =
    "usage: embed BUNDLE [VARIANT] [--truncate] < texts.txt; --version prints ONNX Runtime's";

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(OsString::into_string);
    let Ok(arguments) = arguments.collect::<Result<Vec<_>, _>>() else {
        eprintln!("embed: the arguments are not valid UTF-8");
        return ExitCode::from(2);
    };
    if arguments.iter().any(|argument| argument == "--version") {
        println!("ONNX Runtime {}", onnxruntime::version());
        return ExitCode::SUCCESS;
    }
    let (options, given): (Vec<_>, Vec<_>) = arguments.iter().partition(|a| a.starts_with('-'));
    if given.is_empty() || given.len() > 2 || options.iter().any(|o| *o != "--truncate") {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let variant = given.get(1).map(|name| name.as_str());
    let done = Embedder::open(given[0], variant)
        .and_then(|embedder| embed_lines(&embedder, !options.is_empty()));
    let Err(problem) = done else { return ExitCode::SUCCESS };
    eprintln!("embed: {problem}");
    ExitCode::FAILURE
}

fn embed_lines(embedder: &Embedder, truncate: bool) -> Result<(), String> {
    let mut out = io::stdout().lock();
    for (number, line) in io::stdin().lock().split(b'\n').enumerate() {
        let number = number + 1;
        let line = line.map_err(|e| format!("the standard input cannot be read: {e}"))?;
        c::name_line(number);
        embed(embedder, &line, number == 1, truncate, &mut out)
            .map_err(|problem| format!("line {number}: {problem}"))?;
    }
    out.flush().map_err(|e| e.to_string())
}

fn embed(
    embedder: &Embedder,
    line: &[u8],
    is_first: bool,
    truncate: bool,
    out: &mut impl Write,
) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|_| "the text is not valid UTF-8")?;
    let text = if is_first { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.contains('\0') {
        return Err("the text has a NUL character; remove it".into());
    }
    let found = embedder.embed(text, truncate)?;
    writeln!(out, "{{\"ids\": {:?}, \"vector\": {:?}}}", found.ids, found.vector)
        .map_err(|e| format!("the standard output cannot be written: {e}"))
}
