// Greets whom its input names. Each call has a process of its own.
use std::io::{self, Read};

fn greeting(name: &str) -> String {
    let name = name.trim();
    format!("Hello, {}!", if name.is_empty() { "World" } else { name })
}

fn main() -> io::Result<()> {
    let mut body = String::new();
    io::stdin().read_to_string(&mut body)?;
    println!("{}", greeting(&body));
    Ok(())
}
