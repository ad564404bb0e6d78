# Greets whom its input names. Each call has a process of its own.
def greeting(name)
  "Hello, #{name.strip.empty? ? 'World' : name.strip}!"
end

puts greeting($stdin.read)
