<?php
// Greets whom a call's body names: a line of JSON per call, and a line per answer.
function greeting(string $name): string
{
    return 'Hello, ' . (trim($name) ?: 'World') . "!\n";
}

while (($line = fgets(STDIN)) !== false) {
    $call = json_decode($line, true);
    $answer = ['content_type' => 'text/plain', 'body' => greeting($call['body'])];
    fwrite(STDOUT, json_encode($answer) . "\n");
}
