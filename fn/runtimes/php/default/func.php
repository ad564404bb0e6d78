<?php
// Greets whom its input names. Each call has a process of its own.
function greeting(string $name): string
{
    return 'Hello, ' . (trim($name) ?: 'World') . '!';
}

echo greeting(stream_get_contents(STDIN)), "\n";
