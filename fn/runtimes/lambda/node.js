// Calls an AWS Lambda handler as a function: JSON from standard input, JSON to standard output.
console.log = console.error
const handler = require('./{{module}}')['{{function}}']
const event = JSON.parse(require('fs').readFileSync(0, 'utf8') || '{}')

const succeed = (result) => process.stdout.write(JSON.stringify(result === undefined ? null : result) + '\n', () => process.exit(0))
const fail = (error) => { console.error(error); process.exitCode = 1; setImmediate(() => process.exit(1)) }
const context = {
  functionName: (process.env.ROUTE || '').replace(/^\/+/, ''),
  functionVersion: '$LATEST',
  awsRequestId: process.env.CALL_ID || '',
  memoryLimitInMB: '128',
  getRemainingTimeInMillis: () => Math.max(0, Number(process.env.DEADLINE || 0) - Date.now()),
  succeed,
  fail,
  done: (error, result) => error ? fail(error) : succeed(result)
}

try {
  const returned = handler(event, context, context.done)
  if (returned && returned.then) returned.then(succeed, fail)
} catch (error) {
  fail(error)
}
