# pipe.sh PORT: a stdio server whose every byte comes from, and goes to, a loopback port. It ends with the connection.
exec 3<>"/dev/tcp/127.0.0.1/$1" 4<&0
cat <&4 >&3 &
exec cat <&3
