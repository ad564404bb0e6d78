// Greets whom a call's body names: an HTTP request per call, and a response per answer.
const greeting = (name) => `Hello, ${name.trim() || 'World'}!\n`

const answer = (body) => {
  const bytes = Buffer.byteLength(body)
  process.stdout.write(`HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${bytes}\r\n\r\n${body}`)
}

let waiting = Buffer.alloc(0)
process.stdin.on('data', (data) => {
  waiting = Buffer.concat([waiting, data])
  for (;;) {
    const end = waiting.indexOf('\r\n\r\n')
    if (end < 0) return
    const length = Number(/^content-length: *(\d+)/im.exec(waiting.toString('latin1', 0, end))[1])
    if (waiting.length < end + 4 + length) return
    answer(greeting(waiting.toString('utf8', end + 4, end + 4 + length)))
    waiting = waiting.subarray(end + 4 + length)
  }
})
