// Greets whom a call's body names. One process answers call after call: an HTTP request each.
use std::io::{self, BufRead, Write};

fn greeting(name: &str) -> String {
    let name = name.trim();
    format!("Hello, {}!\n", if name.is_empty() { "World" } else { name })
}

/// Returns the body of the next call, or None if no more calls come.
fn next_body(calls: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    loop {
        let mut line = Vec::new();
        if calls.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap_or(0);
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    calls.read_exact(&mut body)?;
    Ok(Some(body))
}

fn main() -> io::Result<()> {
    let mut calls = io::stdin().lock();
    let mut answers = io::stdout().lock();
    while let Some(body) = next_body(&mut calls)? {
        let text = greeting(&String::from_utf8_lossy(&body));
        let length = text.len();
        write!(answers, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")?;
        write!(answers, "Content-Length: {length}\r\n\r\n{text}")?;
        answers.flush()?;
    }
    Ok(())
}
