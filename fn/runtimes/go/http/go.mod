module func

go 1.19
