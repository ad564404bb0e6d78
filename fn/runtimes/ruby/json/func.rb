# Greets whom a call's body names: a line of JSON per call, and a line per answer.
require 'json'

def greeting(name)
  "Hello, #{name.strip.empty? ? 'World' : name.strip}!\n"
end

$stdout.sync = true
$stdin.each_line do |line|
  call = JSON.parse(line)
  puts JSON.generate({ content_type: 'text/plain', body: greeting(call['body']) })
end
