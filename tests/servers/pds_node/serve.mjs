// Runs one server, as `node serve.mjs plc PORT` or `node serve.mjs pds` (which reads its PDS_… variables), says so with
// one line on standard output, and ends when its standard input does: with the process that started it, however that ends.
import { createRequire } from 'node:module'

const [role, port] = process.argv.slice(2)
// Both packages are CommonJS, installed where the command was started.
const require = createRequire(`${process.cwd()}/`)

if (role === 'plc') {
  const { Database, PlcServer } = require('@did-plc/server')
  await PlcServer.create({ db: Database.mock(), port: Number(port) }).start()
} else {
  const { PDS, envToCfg, envToSecrets, readEnv } = require('@atproto/pds')
  const env = readEnv()
  await (await PDS.create(envToCfg(env), envToSecrets(env))).start()
}
console.log('ready')
process.stdin.on('end', () => process.exit(0)).resume()
