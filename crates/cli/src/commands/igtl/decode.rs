//! Bytes into messages, and what is wrong with them.

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use ultramotion_igtlink::{
    Bind, Content, DecodeError, ErrorClass, Fields, HEADER_SIZE, Header, Message, Value,
};

use super::DecodeArgs;
use super::tree::{tell, write_text};
use crate::output::say;

pub(crate) fn run(args: &DecodeArgs) -> Result<ExitCode> {
    let name = args.file.display().to_string();
    if name == "-" {
        return decode(io::stdin().lock(), "standard input", args);
    }
    let file = File::open(&args.file).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        anyhow::anyhow!("cannot open {name}: {reason}; give a file with messages, or - for standard input")
    })?;
    decode(io::BufReader::new(file), &name, args)
}

fn decode(mut input: impl Read, name: &str, args: &DecodeArgs) -> Result<ExitCode> {
    let (mut offset, mut messages, mut wrong) = (0u64, 0u64, 0u64);
    let mut bytes = Vec::new();
    loop {
        let goes_on = read_message(&mut input, &mut bytes).with_context(|| format!("cannot read {name}"))?;
        if bytes.is_empty() {
            break;
        }
        messages += 1;
        let decoded = Message::decode(&bytes);
        let problem = match &decoded {
            Ok(message) => problem_in(&message.content, 0),
            Err(error) => Some(*error),
        };
        let mut fields: Fields = vec![("offset", offset.into()), ("size", bytes.len().into())];
        match &decoded {
            Ok(message) => fields.extend(message.fields()),
            // Of a message that is wrong, the header at least may tell what it was to be.
            Err(_) => fields.extend(Header::decode(&bytes).iter().flat_map(Header::fields)),
        }
        if let Some(error) = problem {
            wrong += 1;
            let (class, reason) = (class_name(error.class()).into(), error.to_string().into());
            fields.push(("error", Value::Fields(vec![("class", class), ("reason", reason)])));
        }
        print_message(tell(fields.into(), args.full), decoded.is_ok(), args.json)?;
        offset += bytes.len() as u64;
        if !goes_on {
            break;
        }
    }
    if messages == 0 {
        bail!("{name} is empty: there is no message in it");
    }
    if wrong > 0 {
        bail!("{wrong} of {messages} messages in {name} {} wrong", if wrong == 1 { "is" } else { "are" });
    }
    Ok(ExitCode::SUCCESS)
}

fn print_message(message: Value, whole: bool, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string(&message)?)?;
        return Ok(());
    }
    let Value::Fields(mut fields) = message else { return Ok(()) };
    let mut headline = String::new();
    let mut take = |name: &str| {
        let at = fields.iter().position(|(field, _)| *field == name)?;
        Some(fields.remove(at).1)
    };
    let (offset, size) = (take("offset"), take("size"));
    let what = match take("type") {
        Some(Value::Text(name)) => name,
        _ => "no message".into(),
    };
    if let (Some(Value::Unsigned(offset)), Some(Value::Unsigned(size))) = (offset, size) {
        let what = if whole { what } else { format!("{what}, not readable") };
        headline = format!("{what}: {size} bytes at {offset}\n");
    }
    write_text(&fields.into(), &mut headline, 1)?;
    say!("{headline}")?;
    Ok(())
}

/// What is wrong inside a message that is whole: with the children of a BIND, which are decoded on demand.
fn problem_in(content: &Content<'_>, depth: usize) -> Option<DecodeError> {
    let Content::Bind(bind) = content else { return None };
    if depth + 1 == Bind::MAX_DEPTH {
        return None;
    }
    bind.children.iter().find_map(|child| match child.content() {
        Ok(content) => problem_in(&content, depth + 1),
        Err(error) => Some(error),
    })
}

/// Reads up to the end of a message, or of what is there; replaces what is in `bytes`. Memory grows with what really
/// comes, whatever the header claims. Says whether another message can follow.
fn read_message(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    input.take(HEADER_SIZE as u64).read_to_end(bytes)?;
    // After bytes that are not a header, nobody knows where the next one is.
    let Ok(header) = Header::decode(bytes) else { return Ok(false) };
    let body = input.take(header.body_size).read_to_end(bytes)?;
    Ok(body as u64 == header.body_size)
}

/// As conformance suites write it.
fn class_name(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::ShortBuffer => "SHORT_BUFFER",
        ErrorClass::Malformed => "MALFORMED",
        ErrorClass::CrcMismatch => "CRC_MISMATCH",
    }
}
