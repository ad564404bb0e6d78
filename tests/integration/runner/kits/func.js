// A function written with the Fn Project's kit for Node, as its users write them.
const { Readable } = require('stream')
const fdk = require('@fnproject/fdk')

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function * counted (count, pauseMs) {
  for (let n = 0; n < count; n++) {
    yield `data: ${n}\n\n`
    await wait(pauseMs)
  }
}

fdk.handle(async function (input, ctx) {
  if (input[0] !== 0x7b) {
    ctx.responseContentType = 'application/octet-stream'
    return fdk.rawResult(input)
  }
  const asked = JSON.parse(input.toString())
  switch (asked.do) {
    case 'hello':
      console.log('Inside Node Hello World function')
      return { message: `Hello ${asked.name}` }
    case 'context':
      ctx.httpGateway.statusCode = 201
      ctx.httpGateway.setResponseHeader('X-Made-By', 'node')
      return {
        app: ctx.appName,
        function: ctx.fnName,
        call_id: ctx.callID,
        deadline: ctx.deadline.toISOString(),
        method: ctx.httpGateway.method,
        url: ctx.httpGateway.requestURL,
        headers: ctx.httpGateway.headers,
        config: ctx.config.GREETING
      }
    case 'log':
      console.error(asked.text)
      return 'logged'
    case 'stream':
      ctx.responseContentType = 'text/event-stream'
      return fdk.streamResult(Readable.from(counted(asked.count, asked.pause_ms)))
    case 'exit':
      process.exit(3)
  }
  throw new Error("the function's own error")
}, { inputMode: 'buffer' })
