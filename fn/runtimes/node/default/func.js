// Greets whom its input names. Each call has a process of its own.
const greeting = (name) => `Hello, ${name.trim() || 'World'}!`

console.log(greeting(require('fs').readFileSync(0, 'utf8')))
