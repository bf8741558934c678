from etude.launch import main

main()
