// Greets whom a call's body names: a line of JSON per call, and a line per answer.
const greeting = (name) => `Hello, ${name.trim() || 'World'}!\n`

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const call = JSON.parse(line)
  const answer = { content_type: 'text/plain', body: greeting(call.body) }
  process.stdout.write(JSON.stringify(answer) + '\n')
})
