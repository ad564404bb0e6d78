// Greets whom a call's body names, through the Fn Project's kit for Node.
const fdk = require('@fnproject/fdk')

const greeting = (name) => `Hello, ${name.trim() || 'World'}!\n`

fdk.handle((body, ctx) => {
  ctx.responseContentType = 'text/plain'
  return greeting(body || '')
}, { inputMode: 'string' })
